"""What every request passes through: its id, the body limit, metrics and traces."""

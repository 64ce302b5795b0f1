"""What every request passes through: its id, proxies, methods, CORS, limits, metrics, traces."""

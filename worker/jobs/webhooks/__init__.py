"""The webhook outbox, its secrets and its payload."""

"""Background tasks of a worker: heartbeat, recovery, models, webhooks, expiry, comparisons."""

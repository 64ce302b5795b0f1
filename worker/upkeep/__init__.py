"""Runs beside the scoring: heartbeat, recovery, model refresh, webhooks and S3 maintenance."""

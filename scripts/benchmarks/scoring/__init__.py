"""Benchmarks of scoring: rates, latency and fairness, compared with bare scoring and with peers."""

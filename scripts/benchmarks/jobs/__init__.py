"""Benchmarks of jobs around their scoring: uploads, reads, reports and the results page."""

"""The benchmarks that `python -m scripts.bench` runs."""

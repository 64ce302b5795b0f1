"""Benchmarks of trained models and taught heads."""

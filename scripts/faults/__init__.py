"""Faults injected into a running Piqueue, and what they cost: for scripts/chaos and the tests."""

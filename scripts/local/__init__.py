"""Piqueue on one machine: an embedded Redis, supervised processes, the demo and the server."""

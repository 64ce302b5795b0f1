"""Builds the container images and tests them on a running stack."""

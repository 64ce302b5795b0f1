"""Builds the network and fits it."""

"""Finds photos and downloads the pictures of a table."""

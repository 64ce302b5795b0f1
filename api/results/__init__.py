"""Turns stored results into responses: pages, filters and downloads."""

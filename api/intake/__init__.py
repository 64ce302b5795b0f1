"""Turns a request body into a job or a draft."""

"""Uploads and result files, in Redis or S3, and when they expire."""

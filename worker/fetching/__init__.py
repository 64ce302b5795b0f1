"""Fetches the payloads of items from HTTP hosts and S3, safely and many at a time."""

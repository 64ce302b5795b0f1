"""The HTTP API: accepts jobs, reports their status and returns results; it never decodes images."""

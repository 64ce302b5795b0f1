"""Jobs, chunks, leases, results and API keys in Redis."""

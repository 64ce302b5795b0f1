"""The worker process, which scores chunks, and the job contract that it shares with the API."""

"""The health check of a worker's container: `python -m worker.health`."""

import socket
import sys

from worker.jobs.errors import PiqueueError
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.workers import Workers
from worker.jobs.settings import load_settings


def main() -> str | None:
    """Give None if a worker of this host, here the container, has a recent heartbeat in Redis."""
    host = socket.gethostname()
    try:
        workers = Workers(connect(load_settings().redis_url, retries=0)).live()
    except PiqueueError as error:
        return f"piqueue worker: {error}"
    # A worker's id is its host, its process id and a random part.
    if host in (worker_id.rsplit("-", 2)[0] for worker_id in workers):
        return None
    return f"piqueue worker: no worker on {host} has a recent heartbeat"


if __name__ == "__main__":
    sys.exit(main())  # prints a text, and exits with 1

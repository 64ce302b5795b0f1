"""The health check of a worker's container: `python -m worker.health`."""

import socket
import sys

from worker.jobs.errors import PiqueueError
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.workers import Workers
from worker.jobs.settings import load_settings


def main() -> int:
    """Give 0 if a worker of this host, here the container, has a recent heartbeat in Redis."""
    host = socket.gethostname()
    try:
        workers = Workers(connect(load_settings().redis_url, retries=0)).live()
    except PiqueueError as error:
        print(f"piqueue worker: {error}", file=sys.stderr)  # noqa: T201
        return 1
    # A worker's id is its host, its process id and a random part.
    if host in (worker_id.rsplit("-", 2)[0] for worker_id in workers):
        return 0
    print(f"piqueue worker: no worker on {host} has a recent heartbeat", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())

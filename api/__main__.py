"""Runs one API process: `python -m api --host H --port P`."""

import argparse
import sys

import uvicorn

from api.main import create_app
from worker.jobs.errors import PiqueueError
from worker.jobs.logs import configure_logs
from worker.jobs.settings import load_settings


def main() -> int:
    """Serve until told to stop, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        configure_logs(as_json=settings.log_json)
        app = create_app(settings)
    except PiqueueError as error:
        print(f"piqueue api: {error}", file=sys.stderr)  # noqa: T201
        return 1
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs one API process: `python -m api --host H --port P`."""

import argparse
import sys
from ipaddress import ip_address

import uvicorn

from api.main import create_app
from api.services import Services
from worker.jobs.errors import PiqueueError, SettingsInvalid
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
        _refuse_strangers(arguments.host, app.state.services)
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


def _refuse_strangers(host: str, services: Services) -> None:
    """Serve beyond this machine only with API keys, or when told in words to do without."""
    loopback = host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)
    if not loopback and not services.settings.allow_no_keys and not services.keys.all():
        raise SettingsInvalid(
            f"anyone who reaches {host} could use this API, for no API key is set up: make one "
            "with `piqueue keys add NAME`, listen on 127.0.0.1, or set PIQUEUE_ALLOW_NO_KEYS=true"
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

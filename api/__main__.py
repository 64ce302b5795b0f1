"""Runs one API process; settings are PIQUEUE_ variables, see docs/settings.md."""

import argparse
import gc
import sys
from contextlib import suppress
from types import FrameType

import uvicorn

from api.connections import MAX_HEAD_BYTES, Connection, allow_open_files
from api.main import create_app
from api.services import Services
from worker.jobs.errors import PiqueueError, SettingsInvalid
from worker.jobs.ledger.server import check_at_start
from worker.jobs.logs import configure_logs
from worker.jobs.settings import is_loopback, load_settings
from worker.jobs.traces import start_traces, stop_traces

# Threads that compute give way to the event loop after this time.
SWITCH_S = 0.0005
# Requests in progress may take this long when the API is told to stop.
GRACE_S = 10


def main() -> int:
    """Serve until told to stop, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        configure_logs(as_json=settings.log_json)
        start_traces("piqueue-api")
        check_at_start(settings.redis_url)
        app = create_app(settings)
        _require_keys_beyond_loopback(arguments.host, app.state.services)
    except PiqueueError as error:
        print(f"piqueue api: {error}", file=sys.stderr)  # noqa: T201
        return 1
    allow_open_files(settings.max_connections)
    sys.setswitchinterval(SWITCH_S)
    # Objects that live as long as the process: to look at them takes a collection 30 ms each time.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=settings.keep_alive_s,
        proxy_headers=False,  # `BehindProxy` reads them
    )
    server = _Server(config, app.state.services)
    with suppress(KeyboardInterrupt):
        server.run()
    stop_traces()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """A server that answers waiting clients at once when it is told to stop."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._services.job_events.shut_down()
        super().handle_exit(sig, frame)


def _require_keys_beyond_loopback(host: str, services: Services) -> None:
    """Require API keys on other addresses than loopback, unless the settings allow none.

    They stay required when the last key is removed later. On loopback, requests without a key must
    name this machine as their host.
    """
    loopback, settings = is_loopback(host), services.settings
    services.allowed_hosts = settings.allowed_hosts or (() if loopback else None)
    services.keys.required = not loopback and not settings.allow_no_keys
    if services.keys.required and not services.keys.exist():
        raise SettingsInvalid(
            f"no API key exists, so anyone who reaches {host} could use this API: make a key "
            "with `piqueue keys add NAME`, listen on 127.0.0.1, or set PIQUEUE_ALLOW_NO_KEYS=true"
        )


if __name__ == "__main__":
    sys.exit(main())

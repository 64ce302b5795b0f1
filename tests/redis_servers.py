"""Real Redis servers for tests, as Debian packages them."""

from scripts.faults.sentinel import ProgramMissing, program
from tests.browser import unavailable


def require_redis_servers() -> None:
    """Skip a test if this machine has no `redis-server` or no `redis-sentinel`."""
    try:
        for name in ("redis-server", "redis-sentinel"):
            program(name)
    except ProgramMissing as error:
        unavailable(f"Redis with TLS, limited users and Sentinel: {error}")

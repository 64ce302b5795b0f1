"""Webhook secrets: one for each owner, created on first use and rotated without a gap."""

import base64
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from worker.jobs.ledger.connection import RedisClient

PREFIX = "whsec_"
SECRET_BYTES = 32
# After a rotation, the previous secret also signs for this long.
OVERLAP_S = 86400


@dataclass(frozen=True)
class WebhookSecret:
    """The secret of an owner, and the previous one until `previous_until`."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    previous_until: datetime | None = None


class WebhookSecrets(RedisClient):
    """Secrets in Redis, unhashed because signing needs them."""

    @staticmethod
    def _keys(owner: str) -> tuple[str, str]:
        key = f"piqueue:webhook-secret:{owner}"
        return key, f"{key}:previous"

    def get(self, owner: str) -> WebhookSecret:
        """Read the secret of an owner, creating it on first use."""
        current_key, previous_key = self._keys(owner)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(current_key, _new_secret(), nx=True)
            pipe.get(current_key)
            pipe.get(previous_key)
            pipe.pttl(previous_key)
            _, current, previous, left_ms = pipe.execute()
        if previous is None:
            return WebhookSecret(current.decode())
        until = datetime.now(UTC) + timedelta(milliseconds=left_ms)
        return WebhookSecret(current.decode(), previous.decode(), until)

    def rotate(self, owner: str) -> WebhookSecret:
        """Create a new secret; the previous one stays valid for `OVERLAP_S`."""
        current_key, previous_key = self._keys(owner)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.copy(current_key, previous_key, replace=True)
            pipe.expire(previous_key, OVERLAP_S)
            pipe.set(current_key, _new_secret())
            pipe.execute()
        return self.get(owner)


def _new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()

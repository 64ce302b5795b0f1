"""The error that both clients raise."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Self

import httpx2
import msgspec

from piqueue.types import Problem

_TRANSIENT = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
# The latter of a download, which then starts again.
_TRANSIENT_CODES = ("idempotency_in_flight", "results_changed")


class PiqueueApiError(Exception):
    """The API refused a request, or did not answer; then `status` is None.

    `code` is one of the error codes of the API, or `unreachable` or `not_piqueue`. For mistakes on
    this side, which are not retried, it is `key_invalid`, `url_invalid`, `job_id_invalid`,
    `proxy_invalid`, `host_unknown` or `tls_refused`.
    `problems` lists the first of `problem_count` refused items, each with index, id and detail.
    `retry_after_s` is the pause that the API asks for.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int | None = None,
        problems: Iterable[Mapping[str, Any]] = (),
        problem_count: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status
        self.problems = tuple(problems)
        self.problem_count = problem_count
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, response: httpx2.Response) -> Self:
        """Convert an answer that is not a success, from the API or from a proxy before it."""
        wait = response.headers.get("retry-after", "")
        retry_after_s = float(wait) if wait.isdecimal() else None
        status = response.status_code
        try:
            problem = msgspec.json.decode(response.content, type=Problem)
        except msgspec.DecodeError:
            detail = f"the answer was {status} {response.reason_phrase}, and not from Piqueue"
            return cls("not_piqueue", detail, status, retry_after_s=retry_after_s)
        return cls(
            problem.code,
            problem.detail,
            status,
            problem.problems or (),
            problem.problem_count or 0,
            retry_after_s,
        )

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        if self.code == "wrong_keys_sent":  # which time alone does not mend
            return False
        return self.status in _TRANSIENT or self.code in _TRANSIENT_CODES

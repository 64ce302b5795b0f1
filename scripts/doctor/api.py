"""Checks the API as a client: whether it is ready, its version, and the API key."""

from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import version

import httpx2

from piqueue.connection import ClientSettings
from piqueue.errors import PiqueueApiError
from piqueue.local_mistakes import local_mistake
from scripts.doctor.check_result import CheckResult, ok, problem, warning

TIMEOUT_S = 5.0


def check_api(url: str, api_key: str | None) -> Iterator[CheckResult]:
    """Check that the API at `url` is ready, has this version and accepts the key."""
    key = ClientSettings.load(url, api_key).api_key
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as client:
            yield _ready(client.get("/readyz"))
            yield _version(client.get("/openapi.json"))
            yield _key(client.get("/limits"), sent=key is not None)
    except httpx2.ReadTimeout:
        yield problem(
            "api",
            f"accepts connections but does not answer within {TIMEOUT_S:g} s",
            "solve problems of Redis first; otherwise read the API's log",
        )
    except httpx2.TransportError as error:
        mistake = local_mistake(error, url)
        text = mistake.detail if mistake else f"does not answer ({type(error).__name__})"
        yield problem("api", text, "start it, or pass its address as --url or $PIQUEUE_URL")


def _ready(answer: httpx2.Response) -> CheckResult:
    if answer.status_code != HTTPStatus.OK:
        failure = PiqueueApiError.of(answer)
        return problem("api", f"is not ready: {failure.detail}", "solve this first")
    return ok("api", "is ready")


def _version(answer: httpx2.Response) -> CheckResult:
    ours = version("piqueue-server")
    try:
        theirs = str(answer.json()["info"]["version"])
    except (ValueError, LookupError, TypeError):
        theirs = "unknown"
    if theirs != ours:
        return warning(
            "api version", f"{theirs}, but doctor is {ours}", "run the same version everywhere"
        )
    return ok("api version", ours)


def _key(answer: httpx2.Response, *, sent: bool) -> CheckResult:
    if answer.is_success:
        return ok("api key", "accepted" if sent else "not needed")
    failure = PiqueueApiError.of(answer)
    if failure.code == "scope_missing":
        return ok("api key", "accepted, without the scope to read jobs")
    if failure.code != "unauthorized":
        return problem("api key", f"not checked: {failure.detail}", "solve problems of Redis first")
    if sent:
        return problem("api key", failure.detail, "set $PIQUEUE_API_KEY to a valid one")
    return warning("api key", "the API needs a key, and none was given", "set $PIQUEUE_API_KEY")

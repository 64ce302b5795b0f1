"""Errors as RFC 9457 problem details: the table from errors to HTTP status."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.middleware.methods import allowed_methods
from api.middleware.request_id import current_request_id
from api.middleware.security_headers import SAFE
from api.schemas import Problem
from worker.jobs import errors
from worker.jobs.errors import PiqueueError, shortened

MEDIA_TYPE = "application/problem+json"
RETRY_SOON_S = 5
# What nginx calls a request whose client has gone.
CLIENT_GONE = 499
# A later attempt at these may succeed too.
_PASSING = (errors.JobNotDone, errors.IdempotencyInFlight)

STATUS: dict[type[PiqueueError], tuple[int, str]] = {
    errors.SettingsInvalid: (500, "settings_invalid"),
    errors.JobNotFound: (404, "job_not_found"),
    errors.ModelNotFound: (422, "model_not_found"),
    errors.ModelUnavailable: (503, "model_unavailable"),
    errors.CursorInvalid: (400, "cursor_invalid"),
    errors.JobRefused: (422, "job_refused"),
    errors.BodyUnreadable: (400, "body_unreadable"),
    errors.ItemsRefused: (422, "items_refused"),
    errors.UnsupportedBody: (415, "unsupported_body"),
    errors.TooLarge: (413, "too_large"),
    errors.ParameterInvalid: (422, "parameter_invalid"),
    errors.NotAcceptable: (406, "not_acceptable"),
    errors.FormatUnavailable: (501, "format_unavailable"),
    errors.ResultsChanged: (412, "results_changed"),
    errors.JobNotDone: (409, "job_not_done"),
    errors.ParentGone: (409, "parent_gone"),
    errors.WebhookNotFound: (404, "webhook_not_found"),
    errors.ThumbnailNotFound: (404, "thumbnail_not_found"),
    errors.PartsNotFound: (404, "parts_not_found"),
    errors.PartsNotReady: (503, "parts_not_ready"),
    errors.FeaturesNotKept: (409, "features_not_kept"),
    errors.ItemNotFound: (404, "item_not_found"),
    errors.NotCompared: (503, "not_compared"),
    errors.JobNotDraft: (409, "job_not_draft"),
    errors.IdempotencyMismatch: (422, "idempotency_mismatch"),
    errors.IdempotencyInFlight: (409, "idempotency_in_flight"),
    errors.Unauthorized: (401, "unauthorized"),
    errors.ScopeMissing: (403, "scope_missing"),
    errors.WrongKeysSent: (429, "wrong_keys_sent"),
    errors.ForeignRequest: (403, "foreign_request"),
    errors.OverQuota: (429, "over_quota"),
    errors.UploadRejected: (422, "upload_rejected"),
    errors.QueueFull: (503, "queue_full"),
    errors.NoAnswer: (503, "no_answer"),
    errors.LedgerUnavailable: (503, "ledger_unavailable"),
    errors.LedgerFull: (503, "ledger_full"),
    errors.LedgerReplaced: (503, "ledger_replaced"),
    errors.TemporaryFolderUnavailable: (503, "temporary_folder_unavailable"),
    errors.StorageUnavailable: (503, "storage_unavailable"),
    errors.NotReady: (503, "not_ready"),
}

log = structlog.get_logger()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document that a route may return these errors; one that needs a key, 403 and 429 too."""
    if HTTPStatus.UNAUTHORIZED in statuses:
        statuses += (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses
    }


def problem_body(status: int, code: str, detail: str, **extra: Any) -> Problem:
    """Build the body of an error response."""
    return Problem(
        type=f"urn:piqueue:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=shortened(detail),
        request_id=current_request_id(),
        **extra,
    )


def problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, **extra: Any
) -> JSONResponse:
    """Build an error response."""
    body = problem_body(status, code, detail, **extra)
    content = body.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make `app` return every error as a problem."""
    app.add_exception_handler(PiqueueError, _piqueue_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _bug)


async def _piqueue_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PiqueueError)
    status, code = STATUS[type(error)]
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    passing = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    if passing or isinstance(error, _PASSING):
        headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_SOON_S))
    extra: dict[str, Any] = {}
    if isinstance(error, errors.ItemsRefused):
        extra["problem_count"] = error.problem_count
        extra["problems"] = [asdict(item) for item in error.problems]
    if error.draft_change is not None:
        extra |= asdict(error.draft_change)
    return problem(status, code, str(error), headers, **extra)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return await _piqueue_error(request, errors.TooLarge(error.detail))
    code = HTTPStatus(error.status_code).name.lower()
    if error.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        code = "unsupported_body"
    headers, detail, path = dict(error.headers or {}), str(error.detail), request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"this API has no path {path!r}: see /docs for those that it has"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed_methods(request)
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        detail = f"the path {path!r} has no {request.method}: use {headers['Allow']}"
    return problem(error.status_code, code, detail, headers)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, "parameter_invalid", errors.describe(error.errors()))


async def _client_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)  # nobody reads it; it is counted


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("unhandled_error", method=request.method, path=request.url.path, exc_info=error)
    return problem(
        500,
        "internal_error",
        "an unexpected error: the log of the API has its cause under the request_id",
        dict(SAFE),  # This response passes through no middleware.
    )

"""Completes FastAPI's OpenAPI document: an example for every response, errors as problems."""

from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.errors import MEDIA_TYPE, STATUS, problem_body
from api.openapi.literals import EXAMPLES
from api.schemas import JobIn, JobOptions, RescoreIn, RetryIn

_REF = "#/components/schemas/"


def install(app: FastAPI) -> None:
    """Make `app` serve the completed document."""

    @cache
    def document() -> dict[str, Any]:
        return _complete(
            get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
        )

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    # FastAPI does not know the schemas of bodies that the routes read themselves.
    _, bodies = models_json_schema(
        [(model, "validation") for model in (JobIn, JobOptions, RescoreIn, RetryIn)],
        ref_template=f"{_REF}{{model}}",
    )
    schemas |= bodies["$defs"]
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status.isdecimal() and int(status) >= 400:
                    _document_problem(int(status), answer)
                for media in answer.get("content", {}).values():
                    _add_example(media)
    # FastAPI's own schema of a 422, which this API never returns.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _document_problem(status: int, answer: dict[str, Any]) -> None:
    """Document an error as a problem, with its media type."""
    codes = [code for found, code in STATUS.values() if found == status]
    example = problem_body(status, codes[0] if codes else "parameter_invalid", "what to change")
    answer["content"] = {
        MEDIA_TYPE: {
            "schema": {"$ref": f"{_REF}Problem"},
            "example": example.model_dump(exclude_none=True) | {"request_id": "5f1c…"},
        }
    }


def _add_example(media: dict[str, Any]) -> None:
    """Add the example of a response's schema, unless its route has one of its own."""
    if "example" in media or "examples" in media:
        return
    schema = media.get("schema", {})
    for part in schema.get("anyOf", [schema]):
        name = part.get("items", part).get("$ref", "").removeprefix(_REF)
        if name in EXAMPLES:
            media["example"] = [EXAMPLES[name]] if "items" in part else EXAMPLES[name]
            return

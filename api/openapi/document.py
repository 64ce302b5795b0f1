"""The OpenAPI document: FastAPI's, with an example for every answer and our own errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.errors import MEDIA_TYPE, STATUS, problem_body
from api.openapi.examples import EXAMPLES
from api.schemas import JobIn, JobOptions

_REF = "#/components/schemas/"


def install(app: FastAPI) -> None:
    """Make `app` serve the completed document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    routes=app.routes,
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    # The bodies that are read by content type, which FastAPI does not see.
    _, bodies = models_json_schema(
        [(model, "validation") for model in (JobIn, JobOptions)], ref_template=f"{_REF}{{model}}"
    )
    schemas |= bodies["$defs"]
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status.isdecimal() and int(status) >= 400:
                    _show_problem(int(status), answer)
                for media in answer.get("content", {}).values():
                    _show(media, schemas)
    # FastAPI's own shape of a 422, which we never give.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _show_problem(status: int, answer: dict[str, Any]) -> None:
    """Document an error: as a problem, of the media type it really has."""
    given = answer.get("content", {}).get(MEDIA_TYPE, {})
    codes = [code for found, code in STATUS.values() if found == status]
    example = problem_body(status, codes[0] if codes else "parameter_invalid", "what to change")
    answer["content"] = {
        MEDIA_TYPE: {
            "schema": {"$ref": f"{_REF}Problem"},
            "example": example.model_dump(exclude_none=True) | {"request_id": "5f1c…"},
            **given,
        }
    }


def _show(media: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give an answer the example of its schema, unless its route has given one."""
    if "example" in media or "examples" in media:
        return
    schema = media.get("schema", {})
    for part in schema.get("anyOf", [schema]):
        if (example := _example(part, schemas)) is not None:
            media["example"] = example
            return
    if (example := _example(schema.get("items", {}), schemas)) is not None:
        media["example"] = [example]


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    name = schema.get("$ref", "").removeprefix(_REF)
    return EXAMPLES.get(name) or next(iter(schemas.get(name, {}).get("examples", ())), None)

"""The types of the client, held to the OpenAPI document of the API."""

from typing import Any

import msgspec
import pytest

from api.main import create_app
from piqueue import types
from worker.jobs.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
# By the names of the document. The client sends drafts, dry runs and items in other ways.
ANSWERS = {
    "CountsOut": types.Counts,
    "DraftItemOut": types.DraftItem,
    "DraftOut": types.Draft,
    "DraftItemsPage": types.DraftItemsPage,
    "DryRunOut": types.DryRun,
    "DuplicatesPage": types.DuplicatesPage,
    "ErrorOut": types.ItemError,
    "GroupMemberOut": types.Member,
    "GroupOut": types.DuplicateGroup,
    "HostOut": types.SampledHost,
    "ImageOut": types.Image,
    "JobHostOut": types.JobHost,
    "JobOut": types.Job,
    "JobsPage": types.JobsPage,
    "LimitsOut": types.Limits,
    "LinksOut": types.Links,
    "ModelCardOut": types.Model,
    "ModelOut": types.ModelVersion,
    "Problem": types.Problem,
    "ResultOut": types.Result,
    "ResultsPage": types.ResultsPage,
    "SimilarOut": types.Similar,
    "SourceOut": types.Source,
    "TimingsOut": types.Timings,
    "VariantOut": types.Variant,
}
OPTIONS = {"ItemIn": types.Item, "JobOptions": types.JobOptions}
NOT_OPTIONS = {"dry_run"}
NAMES = {type_.__name__: name for name, type_ in {**ANSWERS, **OPTIONS}.items()}


def ours(type_: type[Any]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([type_])
    found: dict[str, Any] = components[type_.__name__]
    return found


def shape(schema: dict[str, Any]) -> Any:
    """What a schema says of values, without titles, texts and bounds, and without references."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        name = NAMES.get(name, name)
        if name in ANSWERS or name in OPTIONS:
            return name
        return shape(DOCUMENT["components"]["schemas"][name])
    if "anyOf" in schema:
        parts = [shape(part) for part in schema["anyOf"]]
        return sorted(parts)
    kind = schema.get("type", "string" if "enum" in schema else "any")
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"object of {'any' if values is True else shape(values)}"
    if kind == "array":
        return f"array of {shape(schema['items'])}"
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values == [True]:  # msgspec has no such literal
        values = None
    return f"{kind} {sorted(values)}" if values else f"{kind} {schema.get('format', '')}".strip()


@pytest.mark.parametrize("name", [*ANSWERS, *OPTIONS])
def test_each_field_has_the_type_that_the_document_gives(name: str) -> None:
    theirs = DOCUMENT["components"]["schemas"][name]
    mine = ours({**ANSWERS, **OPTIONS}[name])
    assert {field: shape(schema) for field, schema in mine["properties"].items()} == {
        field: shape(schema)
        for field, schema in theirs["properties"].items()
        if field not in NOT_OPTIONS or name in ANSWERS
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_client_needs_in_an_answer_is_always_there(name: str) -> None:
    theirs = set(DOCUMENT["components"]["schemas"][name].get("required", ()))
    mine = set(ours(ANSWERS[name]).get("required", ()))
    assert mine <= theirs
    assert theirs - mine <= {"next_cursor"}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_the_api_needs_in_options_a_client_must_give(name: str) -> None:
    theirs = DOCUMENT["components"]["schemas"][name].get("required", [])
    assert ours(OPTIONS[name]).get("required", []) == theirs


def test_filters_and_formats_of_results_are_those_of_the_api() -> None:
    operation = DOCUMENT["paths"]["/jobs/{job_id}/results"]["get"]
    parameters = {one["name"]: one["schema"] for one in operation["parameters"]}
    (known,), components = msgspec.json.schema_components([types.Filters])
    known = components["Filters"]["properties"]
    paging = {"job_id", "cursor", "limit", "format", "offset", "if-match"}
    assert known.keys() == parameters.keys() - paging
    for name, schema in known.items():
        # A list may be empty instead of null.
        theirs = shape(parameters[name])
        assert theirs == (
            shape(schema) if schema.get("type") == "array" else sorted({shape(schema), "null"})
        )
    formats = DOCUMENT["components"]["schemas"]["Format"]["enum"]
    assert set(formats) == {"json", *types.ResultsFormat.__args__}  # type: ignore[attr-defined]


def test_an_answer_may_have_fields_that_the_client_does_not_know() -> None:
    found = msgspec.json.decode(b'{"id": "a", "added_later": 1}', type=types.DraftItem)
    assert found == types.DraftItem(id="a")

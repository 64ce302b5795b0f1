"""Request bodies and examples of the OpenAPI document; literals.json has their values."""

import json
from pathlib import Path
from typing import Any

_VALUES = json.loads(Path(__file__).with_suffix(".json").read_text())

# The bodies that the routes read themselves.
JOBS_BODY: dict[str, Any] = {"requestBody": _VALUES["requests"]["jobs"]}
SCOREFILE_BODY: dict[str, Any] = {"requestBody": _VALUES["requests"]["scorefile"]}
RETRY_BODY: dict[str, Any] = {"requestBody": _VALUES["requests"]["retry"]}
RESCORE_BODY: dict[str, Any] = {"requestBody": _VALUES["requests"]["rescore"]}

# Examples of responses by the name of their schema.
EXAMPLES: dict[str, Any] = _VALUES["schemas"]
JOB: dict[str, Any] = EXAMPLES["JobOut"]
EXAMPLES["JobsPage"] = {"jobs": [JOB], "next_cursor": None}
EXAMPLES["DraftOut"] = {
    **{**JOB, "status": "draft", "started_at": None, "rate_per_s": None, "eta_s": None},
    **{"counts": dict.fromkeys(JOB["counts"], 0) | {"total": 3, "waiting": 3}},
    **{"failures": {}, "hosts": []},
    **{"added_count": 1, "added_ids": ["2"], "existing_count": 0, "existing_ids": []},
}
EXAMPLES["HistogramPage"] = {
    "scored": 251,
    "labels": {"beach": {"threshold": 0.5, "counts": [180, *[0] * 97, 1, 70]}},
    "next_cursor": None,
}
EXAMPLES["ModelDetailsOut"] = {
    **EXAMPLES["ModelCardOut"],
    "input_size": [224, 224],
    "metrics": {"validation": {"macro_average_precision": 0.9831, "binary_accuracy": 0.9773}},
    "sources": [{"name": "photos of our catalogue", "terms": "our own"}],
    "notes": "",
}
_MEMBER = {
    "index": 17,
    "id": "sku-17",
    "source": {"type": "url", "url": "https://example.com/17.jpg", "filename": None},
}
EXAMPLES["SimilarOut"] = {**_MEMBER, "similarity": 0.9731}
EXAMPLES["DuplicatesPage"] = {
    **{"compared": 251, "group_count": 1, "duplicate_count": 1},
    "groups": [{"count": 2, "items": [_MEMBER, {**_MEMBER, "index": 40, "id": "sku-40"}]}],
    "next_cursor": None,
}
EVENTS = "\n".join(_VALUES["events"])
SCORES: dict[str, float] = _VALUES["scores"]

_SCORED, _FAILED = _VALUES["results"]
_LINES = "".join(f"{json.dumps(item)}\n" for item in (_SCORED, _FAILED))
_TABLE = "".join(f"{row}\r\n" for row in _VALUES["table"])

RESULTS: dict[str, Any] = {
    "application/json": {
        "examples": {
            "page": {
                "summary": "A page that is followed by another",
                "value": {"items": [_SCORED, _FAILED], "next_cursor": "aW5kZXg6MTk="},
            },
            "last page": {"value": {"items": [_FAILED]}},
        }
    },
    "application/x-ndjson": {"schema": {"type": "string"}, "example": _LINES},
    "application/jsonl": {"schema": {"type": "string"}, "example": _LINES},
    "text/csv": {"schema": {"type": "string"}, "example": _TABLE},
    "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
}

THUMBNAIL: dict[str, Any] = {"image/webp": {"schema": {"type": "string", "format": "binary"}}}
REPORT: dict[str, Any] = {
    "text/html": {"schema": {"type": "string"}, "example": "<!doctype html>…"}
}
RESCORED: dict[str, Any] = {
    "application/json": {"example": {**JOB, "rescore_of": "job_01M81Q3WZ5A7C9E2G4J6M8P0RS"}}
}
RETRIED: dict[str, Any] = {
    "application/json": {"example": {**JOB, "parent_job": "job_01M81Q3WZ5A7C9E2G4J6M8P0RS"}}
}

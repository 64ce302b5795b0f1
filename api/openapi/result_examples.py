"""Examples of results in each format, and of retries, for the OpenAPI document."""

import json
from typing import Any

from api.openapi.examples import JOB, RESULT

_SCORED = {**RESULT, "source": {"type": "url", "url": "https://example.com/17.jpg"}}
_REJECTED = {
    **_SCORED,
    "index": 18,
    "id": "sku-18",
    "status": "failed",
    "source": {"type": "url", "url": "https://example.com/18.jpg"},
    "columns": {"price": "-1.5"},
    "image": None,
    "scores": None,
    "labels": None,
    "ms": {"fetch": 15000, "decode": 0, "infer": 0},
    "error": {
        "code": "fetch_timeout",
        "stage": "fetch",
        "retryable": True,
        "detail": "no answer in 15 s",
    },
}
_LINES = "".join(f"{json.dumps(item)}\n" for item in (_SCORED, _REJECTED))
_TABLE = (
    "sku,url,price,status,beach,city,sunset,trees,labels,error_code,error_detail\r\n"
    "sku-17,https://example.com/17.jpg,9.90,succeeded,0.981,0.002,0.74,0.01,beach;sunset,,\r\n"
    "sku-18,https://example.com/18.jpg,-1.5,failed,,,,,,fetch_timeout,no answer in 15 s\r\n"
)

RESULTS: dict[str, Any] = {
    "application/json": {
        "examples": {
            "page": {
                "summary": "A page with another after it",
                "value": {"items": [_SCORED, _REJECTED], "next_cursor": "aW5kZXg6MTk="},
            },
            "last page": {"value": {"items": [_REJECTED]}},
        }
    },
    "application/x-ndjson": {"schema": {"type": "string"}, "example": _LINES},
    "application/jsonl": {"schema": {"type": "string"}, "example": _LINES},
    "text/csv": {"schema": {"type": "string"}, "example": _TABLE},
    "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
}

RETRIES: dict[str, Any] = {
    "failed": {"summary": "All that failed", "value": {"only": "failed"}},
    "retryable": {
        "summary": "What may go better another time, such as timeouts",
        "value": {"only": "retryable"},
    },
}

RETRIED: dict[str, Any] = {
    "application/json": {"example": {**JOB, "parent_job": "job_01M81Q3WZ5A7C9E2G4J6M8P0RS"}}
}

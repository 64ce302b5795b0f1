"""Examples of the answers of /results and /retry, for the OpenAPI document."""

import json
from typing import Any

_SCORED = {
    "index": 17,
    "id": "sku-17",
    "status": "succeeded",
    "source": {"type": "url", "url": "https://example.com/17.jpg"},
    "columns": {"price": "9.90"},
    "image": {
        "sha256": "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184",
        "bytes": 183112,
        "format": "jpeg",
        "width": 1200,
        "height": 800,
    },
    "scores": {"beach": 0.981, "city": 0.002, "sunset": 0.74, "trees": 0.01},
    "labels": ["beach", "sunset"],
    "attempts": 1,
    "ms": {"fetch": 84, "decode": 6, "infer": 12},
    "error": None,
}
_REJECTED = {
    "index": 18,
    "id": "sku-18",
    "status": "failed",
    "source": {"type": "url", "url": "https://example.com/18.jpg"},
    "columns": {"price": "-1.5"},
    "image": None,
    "scores": None,
    "labels": None,
    "attempts": 1,
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
    "application/json": {
        "example": {
            "id": "job_01K9ZQ4M7T2V5X8Y3A6B9C0D1E",
            "status": "queued",
            "done": False,
            "name": "catalogue",
            "model": {"name": "scenes", "version": "1", "sha256": "5f70bf18a0860070"},
            "priority": "interactive",
            "counts": {
                "total": 13,
                "waiting": 13,
                "running": 0,
                "succeeded": 0,
                "failed": 0,
                "cancelled": 0,
            },
            "rate_per_s": None,
            "eta_s": None,
            "failures": {},
            "created_at": "2026-03-01T12:00:00Z",
            "started_at": None,
            "finished_at": None,
            "expires_at": "2026-03-08T12:00:00Z",
            "metadata": {},
            "parent_job": "job_01K9ZPC3R6S9W2F5H8J1N4P7QK",
            "error": None,
            "links": {
                "self": "/jobs/job_01K9ZQ4M7T2V5X8Y3A6B9C0D1E",
                "results": "/jobs/job_01K9ZQ4M7T2V5X8Y3A6B9C0D1E/results",
                "events": "/jobs/job_01K9ZQ4M7T2V5X8Y3A6B9C0D1E/events",
                "cancel": "/jobs/job_01K9ZQ4M7T2V5X8Y3A6B9C0D1E/cancel",
            },
            "results": None,
        }
    }
}

"""Examples of the answers, by the name of their schema."""

from typing import Any

_MODEL = {"name": "scenes", "version": "2", "sha256": "9f86d081884c7d65" * 4}
_ID = "job_01M81QHC2PSQY738DHJF0EYRK9"

RESULT: dict[str, Any] = {
    "index": 17,
    "id": "sku-17",
    "status": "succeeded",
    "source": {"type": "url", "url": "https://example.com/17.jpg", "filename": None},
    "columns": {"price": "9.90"},
    "image": {
        "sha256": "2c26b46b68ffc68ff99b453c1d304134" * 2,
        "bytes": 183112,
        "format": "jpeg",
        "width": 1200,
        "height": 800,
    },
    "scores": {"beach": 0.981, "city": 0.002, "sunset": 0.74, "trees": 0.01},
    "labels": ["beach", "sunset"],
    "cached": False,
    "attempts": 1,
    "ms": {"fetch": 84, "decode": 6, "infer": 12},
    "error": None,
}

JOB: dict[str, Any] = {
    "id": _ID,
    "status": "running",
    "done": False,
    "name": "autumn catalogue",
    "model": _MODEL,
    "priority": "bulk",
    "counts": {
        "total": 1000,
        "waiting": 640,
        "running": 96,
        "succeeded": 251,
        "failed": 13,
        "cancelled": 0,
        "cached": 40,
    },
    "rate_per_s": 118.4,
    "eta_s": 6,
    "failures": {"fetch_http_status": 9, "not_an_image": 4},
    "hosts": [
        {
            "host": "old.example.com",
            "ok": 31,
            "http_status": {"404": 9},
            "timeouts": 0,
            "other": 0,
            "p95_ms": 640,
        },
        {
            "host": "example.com",
            "ok": 224,
            "http_status": {},
            "timeouts": 0,
            "other": 0,
            "p95_ms": 120,
        },
    ],
    "created_at": "2026-11-22T13:36:10Z",
    "started_at": "2026-11-22T13:36:11Z",
    "finished_at": None,
    "expires_at": "2026-11-29T13:36:10Z",
    "metadata": {"order": 7},
    "parent_job": None,
    "error": None,
    "links": {
        "self": f"/jobs/{_ID}",
        "results": f"/jobs/{_ID}/results",
        "events": f"/jobs/{_ID}/events",
        "cancel": f"/jobs/{_ID}/cancel",
    },
    "results": None,
}

EXAMPLES: dict[str, Any] = {
    "JobOut": JOB,
    "JobsPage": {"jobs": [JOB], "next_cursor": None},
    "DraftItemsPage": {"items": [{"id": "beach.jpg"}, {"id": "park.jpg"}], "next_cursor": None},
    "ResultsPage": {"items": [RESULT], "next_cursor": "aW5kZXg6MTg="},
    "DryRunOut": {
        "dry_run": True,
        "items": 1000,
        "model": _MODEL,
        "sampled": 50,
        "hosts": [
            {"host": "old.example.com", "sampled": 9, "failures": {"fetch_http_status": 9}},
            {"host": "example.com", "sampled": 41, "failures": {}},
        ],
        "eta_s": 9,
    },
    "ModelCardOut": {
        **_MODEL,
        "labels": ["beach", "city", "sunset", "trees"],
        "thresholds": {"beach": 0.5, "city": 0.5, "sunset": 0.5, "trees": 0.5},
        "top_k": None,
        "created": "2026-11-22",
        "default": True,
        "current": True,
        "warm_workers": 2,
        "unable_workers": 0,
    },
    "LimitsOut": {
        "max_items": 1_000_000,
        "max_files": 1000,
        "max_item_bytes": 25_000_000,
        "max_request_bytes": 500_000_000,
        "max_json_bytes": 50_000_000,
        "max_pixels": 50_000_000,
        "job_ttl_s": 604_800,
        "s3_fetch_buckets": ["photos"],
        "quota_items": 2_000_000,
        "waiting_items": 736,
        "rate_per_s": 118.4,
    },
    "Health": {"status": "ready", "workers": 2, "warm": 2},
}

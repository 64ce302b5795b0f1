"""A result as one line of JSON, in the shape of the API."""

from typing import Any

from pydantic_core import to_json

from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.catalog import ModelCard


def result_line(stored: StoredResult, model: ModelCard) -> bytes:
    """Write a result with its line break; the bytes are deterministic."""
    return to_json(_fields(stored, model)) + b"\n"


def _fields(stored: StoredResult, model: ModelCard) -> dict[str, Any]:
    spec, result = stored.spec, stored.result
    image, rejection, timings, scores = result.image, result.rejection, result.timings, None
    labels = None
    if result.scores is not None:
        scores, labels = model.answer(result.scores)
    return {
        "index": stored.index,
        "id": spec.id,
        "status": "failed" if rejection else "succeeded",
        "source": {"type": "upload", "filename": spec.filename}
        if spec.url is None
        else {"type": "url", "url": spec.url},
        "columns": spec.columns,
        "image": image
        and {
            "sha256": image.sha256,
            "bytes": image.byte_count,
            "format": image.format,
            "width": image.width,
            "height": image.height,
        },
        "scores": scores,
        "labels": labels,
        "cached": result.cached,
        "attempts": stored.attempts,
        "ms": {
            "fetch": timings.fetch_ms,
            "decode": timings.decode_ms,
            "infer": timings.infer_ms,
        },
        "error": rejection
        and {
            "code": rejection.code,
            "stage": rejection.stage,
            "retryable": rejection.retryable,
            "detail": rejection.detail,
        },
    }

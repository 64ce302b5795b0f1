"""Results as clients read them: in responses of the API, and in the result files on S3."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from worker.jobs.items import ItemSpec, RejectionCode, Stage
from worker.jobs.ledger.reader import StoredResult


class Out(BaseModel):
    """Validated from a dictionary, or from an object with these attributes; stamps are in ms."""

    model_config = ConfigDict(
        from_attributes=True, validate_by_name=True, val_temporal_unit="milliseconds"
    )


class ImageOut(Out):
    """A picture; `width` and `height` are in pixels, after any rotation that its EXIF asks for."""

    sha256: str
    bytes: int = Field(validation_alias="byte_count")
    format: str | None
    width: int | None
    height: int | None


class SourceOut(BaseModel):
    """The source of a picture."""

    type: Literal["url", "upload"]
    url: str | None = None
    filename: str | None = None

    @classmethod
    def of(cls, spec: ItemSpec) -> Self:
        """The source of an item."""
        if spec.url is None:
            return cls(type="upload", filename=spec.filename)
        return cls(type="url", url=spec.url)


class TimingsOut(Out):
    """Milliseconds spent in each stage."""

    fetch: int = Field(validation_alias="fetch_ms")
    decode: int = Field(validation_alias="decode_ms")
    infer: int = Field(validation_alias="infer_ms")


class ErrorOut(Out):
    """Why an item has no scores."""

    code: RejectionCode
    stage: Stage
    retryable: bool
    detail: str


class ResultOut(BaseModel):
    """One finished item: `scores` or `error`, never both."""

    index: int
    id: str
    status: Literal["succeeded", "failed"]
    source: SourceOut
    columns: dict[str, str] | None
    image: ImageOut | None
    scores: dict[str, float] | None
    labels: list[str] | None
    variant: str | None = Field(
        None, description="The variant of the model that gave the scores: float or int8"
    )
    cached: bool
    attempts: int
    ms: TimingsOut
    error: ErrorOut | None

    @classmethod
    def of(
        cls, stored: StoredResult, scores: dict[str, float] | None, labels: list[str] | None
    ) -> Self:
        """Convert a stored result, with these scores and labels."""
        result, spec = stored.result, stored.spec
        return cls(
            index=stored.index,
            id=spec.id,
            status="failed" if result.rejection else "succeeded",
            source=SourceOut.of(spec),
            columns=spec.columns,
            image=result.image,
            scores=scores,
            labels=labels,
            variant=result.variant,
            cached=result.cached,
            attempts=stored.attempts,
            ms=result.timings,
            error=result.rejection,
        )

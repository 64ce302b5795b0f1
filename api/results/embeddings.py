"""Kept features as columns of a Parquet table."""

from collections.abc import Sequence
from typing import Any

from api.results.selection import ResultView
from worker.jobs.errors import ParameterInvalid
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore
from worker.jobs.storage.features import Kept, with_kept

# Of packed features, before the steps: two float32, the lowest value and the step.
_RANGE_BYTES = 8


class Embeddings:
    """The hashes of a job's pictures, and for each backbone their features and their variant.

    Raises:
        ParameterInvalid: the job keeps none.
    """

    def __init__(self, blobs: BlobStore, job: Job, model: ModelCard) -> None:
        if job.rescore_of is not None:
            raise ParameterInvalid(
                f"embeddings: {job.id} was scored from the features of {job.rescore_of}: read "
                "them from that job"
            )
        if not job.keep_features:
            raise ParameterInvalid(
                f"embeddings: {job.id} was submitted without keep_features: submit it again with "
                "that option"
            )
        self._blobs, self._job = blobs, job
        # Of models with the same backbone, the first one names the column.
        columns: dict[str, str] = {}
        for part in model.parts or (model,):
            if part.backbone is not None:
                name = f"{part.name}/embedding" if model.parts else "embedding"
                columns.setdefault(part.backbone, name)
        self._backbones = list(columns)
        self.columns = ["sha256"]
        for name in columns.values():
            self.columns += [name, f"{name}_variant"]

    @staticmethod
    def kinds(count: int) -> list[Any]:
        """The types of `count` columns."""
        import pyarrow

        of_backbone = [pyarrow.list_(pyarrow.float32()), pyarrow.string()]
        return [pyarrow.string(), *of_backbone * (count // 2)]

    def arrays(self, views: Sequence[ResultView]) -> list[Any]:
        """The columns of some rows; features are null if they are not kept."""
        stored = [view.stored for view in views]
        images = [one.result.image for one in stored]
        arrays: list[Any] = [[image and image.sha256 for image in images]]
        for backbone in self._backbones:
            kept = [one for _, one in with_kept(self._blobs, self._job, backbone, stored)]
            arrays += [_array(kept), [one and one.variant for one in kept]]
        return arrays


def _array(packed: Sequence[Kept | None]) -> Any:
    """Unpack features as `model.artifact.features` does, which needs NumPy."""
    import pyarrow
    import pyarrow.compute

    kept = [bytes(one.features) for one in packed if one is not None]
    width = len(kept[0]) - _RANGE_BYTES if kept else 0
    count = len(kept) * width

    def column(kind: Any, content: bytes) -> Any:
        return pyarrow.Array.from_buffers(kind, count, [None, pyarrow.py_buffer(content)])

    steps = column(pyarrow.uint8(), b"".join(one[_RANGE_BYTES:] for one in kept))
    lowest, step = (
        column(pyarrow.float32(), b"".join(one[at : at + 4] * width for one in kept))
        for at in (0, 4)
    )
    compute = pyarrow.compute
    values = compute.add(compute.multiply(steps.cast(pyarrow.float32()), step), lowest)
    offsets, end = [], 0
    for one in packed:
        offsets.append(None if one is None else end)
        end += 0 if one is None else width
    offsets.append(end)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), values)

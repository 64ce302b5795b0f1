"""Reads what is alike in a job, once its pictures were compared."""

from worker.jobs.errors import FeaturesNotKept, JobNotDone
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore
from worker.jobs.storage.similar import SimilarPictures


def similar_pictures(blobs: BlobStore, job: Job, model: ModelCard) -> SimilarPictures:
    """What is alike in a job, by the features that it keeps.

    Raises:
        FeaturesNotKept: it keeps none.
        JobNotDone: it still runs.
    """
    if job.rescore_of is not None:
        raise FeaturesNotKept(
            f"{job.id} was scored from the features of {job.rescore_of}: ask for those of that job"
        )
    backbone = model.first_backbone
    if not job.keep_features or backbone is None:
        raise FeaturesNotKept(
            f"{job.id} was submitted without keep_features, by which pictures are compared: submit "
            "its pictures again with that option"
        )
    if not job.status.done:
        raise JobNotDone(f"{job.id} is {job.status}: try again once it is done")
    return SimilarPictures(blobs, job.id, backbone)

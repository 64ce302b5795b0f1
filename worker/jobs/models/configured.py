"""Opens the model catalog of the settings: the registry first, then the bundled models."""

from pathlib import Path

from worker.jobs.models.catalog import ModelCatalog, ModelSource
from worker.jobs.models.folder import ModelFolder
from worker.jobs.settings import Settings, require_boto3


def open_catalog(settings: Settings) -> ModelCatalog:
    """Open PIQUEUE_REGISTRY_URL, PIQUEUE_ARTIFACTS_PATH and PIQUEUE_MODEL_URL.

    Raises:
        ModelUnavailable: the model of PIQUEUE_MODEL_URL cannot be downloaded or verified.
    """
    cache_path = settings.models_cache_path.expanduser()
    sources: list[ModelSource] = []
    if settings.registry_url is not None:
        sources.append(_registry(settings, settings.registry_url, cache_path))
    sources.append(ModelFolder(settings.artifacts_path))
    if settings.model_url is not None and settings.model_sha256 is not None:
        from worker.jobs.models.download import downloaded

        sources.append(downloaded(settings.model_url, settings.model_sha256, cache_path))
    return ModelCatalog(sources, settings.default_model)


def _registry(settings: Settings, url: str, cache_path: Path) -> ModelSource:
    if "://" not in url:
        return ModelFolder(Path(url))
    require_boto3()
    from worker.jobs.models.bucket import ModelBucket
    from worker.jobs.s3 import Folder

    return ModelBucket(Folder.open(settings, url), cache_path)

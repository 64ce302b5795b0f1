"""S3, where the settings name it: whether it takes, gives back, encrypts and deletes an object."""

import secrets
from collections.abc import Iterator
from typing import Any

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from worker.jobs.errors import PiqueueError, StorageUnavailable
from worker.jobs.settings import IN_REDIS, S3_FOLDER, Settings, require_boto3

TIMEOUT_S = 3.0
_ADVICE = (
    "correct the URL, PIQUEUE_S3_ENDPOINT_URL, PIQUEUE_S3_REGION and the AWS_ credentials; these "
    "need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket (docs/s3.md)"
)


def check_storage(settings: Settings) -> Iterator[CheckResult]:
    """Try what is on S3: storage, the registry of models, buckets to fetch from."""
    storage = None if settings.storage_url == IN_REDIS else settings.storage_url
    registry = settings.registry_url if "://" in (settings.registry_url or "") else None
    if not (storage or registry or settings.s3_fetch_buckets):
        yield ok("s3", "the settings name none")
        return
    try:
        require_boto3()
    except PiqueueError as error:
        yield problem("s3", str(error), "pip install 'piqueue[s3]'")
        return
    if storage:
        yield _storage(settings, storage)
    if registry:
        yield _registry(settings, registry)
    for bucket in settings.s3_fetch_buckets:
        yield _bucket(settings, bucket)


def _client(settings: Settings) -> Any:
    from worker.jobs.s3 import connect_s3, storage_errors

    with storage_errors():
        return connect_s3(settings, connections=1, timeout_s=TIMEOUT_S, attempts=1)


def _first_key(settings: Settings, url: str) -> str | None:
    """List one object; raises StorageUnavailable."""
    from worker.jobs.s3 import Folder

    found = next(Folder(_client(settings), url, {}).list(""), None)
    return found and found[0]


def _storage(settings: Settings, url: str) -> CheckResult:
    """Write an object of our own, read it, see how it is encrypted and delete it."""
    from worker.jobs.s3 import Folder, encryption, storage_errors

    place = S3_FOLDER.fullmatch(url)
    assert place is not None, "the settings were checked"
    name = f"piqueue-doctor-{secrets.token_hex(8)}"
    path = f"{place['prefix']}/{name}" if place["prefix"] else name
    payload = secrets.token_bytes(1000)
    try:
        client = _client(settings)
        folder = Folder(client, url, encryption(settings))
        try:
            folder.put(name, payload)
            if folder.get(name) != payload:
                return problem("s3 storage", f"{url} gives back other bytes", "replace this server")
            with storage_errors():
                head = client.head_object(Bucket=place["bucket"], Key=path)
        finally:
            folder.delete([name])
    except StorageUnavailable as error:
        return problem("s3 storage", f"{url}: {error}", _ADVICE)
    used = head.get("ServerSideEncryption")
    if settings.s3_encryption and used != settings.s3_encryption:
        return problem(
            "s3 storage",
            f"{url} keeps what is asked to be encrypted ({settings.s3_encryption}) "
            f"{f'as {used}' if used else 'without encryption'}",
            "use a server that encrypts, or unset PIQUEUE_S3_ENCRYPTION",
        )
    return ok("s3 storage", f"{url} takes, gives and deletes; encryption: {used or 'none'}")


def _registry(settings: Settings, url: str) -> CheckResult:
    try:
        _first_key(settings, url)
    except StorageUnavailable as error:
        return problem("s3 registry", f"{url}: {error}", _ADVICE)
    return ok("s3 registry", f"{url} can be read")


def _bucket(settings: Settings, bucket: str) -> CheckResult:
    try:
        _first_key(settings, f"s3://{bucket}")
    except StorageUnavailable as error:
        return warning(
            "s3 fetch",
            f"{bucket}: {error}",
            "correct PIQUEUE_S3_FETCH_BUCKETS or the AWS_ credentials; where only s3:GetObject is "
            "allowed, which is enough to fetch, this check cannot tell",
        )
    return ok("s3 fetch", f"{bucket} can be read")

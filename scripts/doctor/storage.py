"""Checks S3 where the settings use it: write, read, encrypt and delete an object."""

import secrets
from collections.abc import Iterator
from typing import Any

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from worker.jobs.errors import PiqueueError, StorageUnavailable
from worker.jobs.settings import S3_FOLDER, Settings, require_boto3

TIMEOUT_S = 3.0
_ADVICE = (
    "correct the URL, PIQUEUE_S3_ENDPOINT_URL, PIQUEUE_S3_REGION and the AWS_ credentials, which "
    "need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket (docs/s3.md)"
)

_BUCKET_ADVICE = (
    "correct PIQUEUE_S3_FETCH_BUCKETS or the AWS_ credentials; s3:GetObject alone is enough to "
    "fetch, but not for this check"
)


def check_storage(settings: Settings) -> Iterator[CheckResult]:
    """Check what is on S3: storage, the model registry, buckets to fetch from."""
    storage = settings.storage_url if settings.stores_on_s3 else None
    registry = settings.registry_url if "://" in (settings.registry_url or "") else None
    if not (storage or registry or settings.s3_fetch_buckets):
        yield ok("s3", "not used by the settings")
        return
    try:
        require_boto3()
    except PiqueueError as error:
        yield problem("s3", str(error), "pip install 'piqueue-server[s3]'")
        return
    if storage:
        yield _storage(settings, storage)
    if registry:
        if failure := _list_error(settings, registry):
            yield problem("s3 registry", f"{registry}: {failure}", _ADVICE)
        else:
            yield ok("s3 registry", f"{registry} can be read")
    for bucket in settings.s3_fetch_buckets:
        if failure := _list_error(settings, f"s3://{bucket}"):
            yield warning("s3 fetch", f"{bucket}: {failure}", _BUCKET_ADVICE)
        else:
            yield ok("s3 fetch", f"{bucket} can be read")


def _client(settings: Settings) -> Any:
    from worker.jobs.s3 import connect_s3, storage_errors

    with storage_errors():
        return connect_s3(settings, connections=1, timeout_s=TIMEOUT_S, attempts=1)


def _list_error(settings: Settings, url: str) -> StorageUnavailable | None:
    """List one object; gives the error if that fails."""
    from worker.jobs.s3 import Folder

    try:
        next(Folder(_client(settings), url, {}).list(""), None)
    except StorageUnavailable as error:
        return error
    return None


def _storage(settings: Settings, url: str) -> CheckResult:
    """Write a test object, read it, check its encryption and delete it."""
    from worker.jobs.s3 import Folder, encryption, storage_errors

    parts = S3_FOLDER.fullmatch(url)
    assert parts is not None, "Settings validates the URL"
    name = f"piqueue-doctor-{secrets.token_hex(8)}"
    path = f"{parts['prefix']}/{name}" if parts["prefix"] else name
    payload = secrets.token_bytes(1000)
    try:
        client = _client(settings)
        folder = Folder(client, url, encryption(settings))
        try:
            folder.put(name, payload)
            if folder.get(name) != payload:
                return problem("s3 storage", f"{url} returns other bytes", "use another server")
            with storage_errors():
                head = client.head_object(Bucket=parts["bucket"], Key=path)
        finally:
            folder.delete([name])
    except StorageUnavailable as error:
        return problem("s3 storage", f"{url}: {error}", _ADVICE)
    used = head.get("ServerSideEncryption")
    if settings.s3_encryption and used != settings.s3_encryption:
        return problem(
            "s3 storage",
            f"{url} stores objects with encryption {used or 'none'}, not {settings.s3_encryption}",
            "use a server that encrypts, or unset PIQUEUE_S3_ENCRYPTION",
        )
    return ok("s3 storage", f"{url} can be written, read and deleted; encryption: {used or 'none'}")

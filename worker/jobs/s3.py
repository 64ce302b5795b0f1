"""S3 and compatible servers: the client, and a folder in a bucket."""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from worker.jobs.errors import StorageUnavailable
from worker.jobs.settings import S3_FOLDER, Settings

CONNECTIONS = 32
CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
ATTEMPTS = 3
MULTIPART_BYTES = 8 * 1024 * 1024
DELETED_AT_ONCE = 1000
# PIQUEUE_S3_PATH_STYLE as boto3 spells it.
ADDRESSING = {None: "auto", True: "path", False: "virtual"}
_CODE = re.compile(r"\w{1,64}")


def connect_s3(
    settings: Settings,
    *,
    connections: int = CONNECTIONS,
    timeout_s: float = READ_TIMEOUT_S,
    attempts: int = ATTEMPTS,
) -> Any:
    """Return a thread-safe client with the credentials that boto3 finds."""
    client = Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        config=Config(
            signature_version="s3v4",
            connect_timeout=min(CONNECT_TIMEOUT_S, timeout_s),
            read_timeout=timeout_s,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": attempts},
            s3={"addressing_style": ADDRESSING[settings.s3_path_style]},
            # Compatible servers support few of the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)
    return client


def _add_md5(request: Any, **_: object) -> None:
    """Add the checksum that older servers require for deleting many objects."""
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


def status_of(error: ClientError) -> tuple[int, str]:
    """The HTTP status and the code of an error response."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", ""))
    return status, code if _CODE.fullmatch(code) else "unknown"


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise StorageUnavailable for errors of S3 and boto3, without the URLs in their texts."""
    try:
        yield
    except ClientError as error:
        status, code = status_of(error)
        raise StorageUnavailable(f"S3 answers {status} ({code})") from None
    except NoCredentialsError:
        raise StorageUnavailable(
            "boto3 finds no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except BotoCoreError as error:
        raise StorageUnavailable(f"S3 does not answer ({type(error).__name__})") from None


def encryption(settings: Settings) -> dict[str, str]:
    """The parameters of server-side encryption."""
    asked = {
        "ServerSideEncryption": settings.s3_encryption,
        "SSEKMSKeyId": settings.s3_kms_key_id,
    }
    return {name: value for name, value in asked.items() if value is not None}


class Folder:
    """Objects under `s3://bucket/prefix`; every method raises StorageUnavailable."""

    def __init__(self, client: Any, url: str, encryption: Mapping[str, str]) -> None:
        match = S3_FOLDER.fullmatch(url)
        assert match is not None, "validated by the settings"
        self._client = client
        self._bucket = match["bucket"]
        self._prefix = f"{match['prefix']}/" if match["prefix"] else ""
        self._encryption = dict(encryption)

    @classmethod
    def open(cls, settings: Settings, url: str) -> "Folder":
        """Return the folder at `url`, without a request."""
        return cls(connect_s3(settings), url, encryption(settings))

    def put(self, key: str, payload: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object, in several parts if it is large, with its SHA-256 as metadata."""
        digest = hashlib.sha256(payload).hexdigest()
        extra = {"ContentType": content_type, "Metadata": {"sha256": digest}, **self._encryption}
        config = TransferConfig(multipart_threshold=MULTIPART_BYTES, use_threads=False)
        with storage_errors():
            self._client.upload_fileobj(
                io.BytesIO(payload),
                self._bucket,
                self._prefix + key,
                ExtraArgs=extra,
                Config=config,
            )

    def get(self, key: str) -> bytes | None:
        """Read an object; None if it does not exist."""
        with storage_errors():
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            except self._client.exceptions.NoSuchKey:
                return None
            with answer["Body"] as body:
                payload: bytes = body.read()
        return payload

    def sha256(self, key: str) -> str | None:
        """The SHA-256 that `put` wrote; None if the object does not exist or has none."""
        with storage_errors():
            try:
                answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if status_of(error)[0] == 404:
                    return None
                raise
        digest: str | None = answer["Metadata"].get("sha256")
        return digest

    def list(self, prefix: str) -> Iterator[tuple[str, str]]:
        """List the key and the ETag of every object whose key begins with `prefix`."""
        with storage_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self._prefix), entry["ETag"]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, whether or not they exist."""
        remaining = iter(keys)
        while some := list(islice(remaining, DELETED_AT_ONCE)):
            objects = [{"Key": self._prefix + key} for key in some]
            with storage_errors():
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
                )
            if errors := answer.get("Errors"):
                raise StorageUnavailable(f"S3 did not delete an object ({errors[0].get('Code')})")

    def delete_under(self, prefix: str) -> None:
        """Delete every object whose key begins with `prefix`."""
        self.delete(key for key, _ in self.list(prefix))

    def presign(self, key: str, expires_s: int) -> str:
        """Return a URL with which anyone can read the object for `expires_s`, without a request."""
        with storage_errors():
            url: str = self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._prefix + key},
                ExpiresIn=expires_s,
            )
        return url

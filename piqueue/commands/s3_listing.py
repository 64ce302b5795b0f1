"""The pictures of a folder in S3 as items, listed with the submitter's own credentials."""

import importlib.util
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from piqueue.client import READ_BYTES, Body
from piqueue.commands.sources import S3Folder, SourceUnfit, is_picture
from worker.jobs.settings import load_settings


@dataclass(frozen=True)
class Listed:
    """What was found: items as JSON, one a line, and how many objects are no pictures."""

    items: Body
    picture_count: int
    other_count: int


@contextmanager
def list_pictures(folder: S3Folder) -> Iterator[Listed]:
    """List the pictures in a folder and below it, by their suffixes; hidden ones left out.

    The id of each is its key below the folder. The list lies in a file while the block runs, for it
    may be long, and a request that is sent again has the same body although objects came meanwhile.

    Raises:
        SourceUnfit: S3 does not let us list, or there are no pictures.
    """
    if importlib.util.find_spec("boto3") is None:
        raise SourceUnfit(f"{folder}: listing it needs boto3: pip install 'piqueue[s3]'")
    picture_count = other_count = 0
    with tempfile.TemporaryFile() as found:
        with _explained(folder):
            for key in _keys(folder):
                item_id = key.removeprefix(folder.prefix)
                if is_picture(PurePosixPath(item_id)):
                    picture_count += 1
                    item = {"url": f"s3://{folder.bucket}/{key}", "id": item_id}
                    found.write(json.dumps(item).encode() + b"\n")
                else:
                    other_count += 1
        if not picture_count:
            others = f", only {other_count} of other kinds" if other_count else ""
            raise SourceUnfit(f"{folder}: no pictures there{others}")

        def lines() -> Iterator[bytes]:
            found.seek(0)
            while part := found.read(READ_BYTES):
                yield part

        yield Listed(lines, picture_count, other_count)


def _keys(folder: S3Folder) -> Iterator[str]:
    """Give the keys of all objects, a page at a time, without those that stand for folders."""
    from worker.jobs.s3 import connect_s3

    pages = connect_s3(load_settings()).get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=folder.bucket, Prefix=folder.prefix):
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield entry["Key"]


@contextmanager
def _explained(folder: S3Folder) -> Iterator[None]:
    """Say what a person can do about what S3 and boto3 raise."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
    )

    from worker.jobs.s3 import status_of

    try:
        yield
    except ClientError as error:
        status, code = status_of(error)
        if code == "NoSuchBucket":
            raise SourceUnfit(f"{folder}: there is no bucket {folder.bucket}") from None
        detail = f"S3 answers {status} ({code}); your credentials must allow s3:ListBucket there"
        raise SourceUnfit(f"{folder}: {detail}") from None
    except NoCredentialsError:
        raise SourceUnfit(
            f"{folder}: no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        ) from None
    except ParamValidationError:
        raise SourceUnfit(f"{folder}: {folder.bucket} cannot be the name of a bucket") from None
    except BotoCoreError as error:
        raise SourceUnfit(f"{folder}: cannot be listed: {error}") from None

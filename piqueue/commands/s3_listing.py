"""Lists the pictures of a folder in S3, with the credentials of the submitter."""

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from piqueue.commands.pictures import LISTED, LeftOut, is_hidden, may_be_picture
from piqueue.commands.sources import S3Folder
from piqueue.commands.terminal import CommandFailed
from piqueue.requests import READ_BYTES
from piqueue.types import Body

# The values of PIQUEUE_S3_PATH_STYLE, and boto3's.
_ADDRESSING = {"": "auto", "true": "path", "false": "virtual"}


@dataclass(frozen=True)
class Listed:
    """The pictures as items, JSON one a line, and the counts of them and of other objects.

    `others` are the first of the other objects that are not hidden.
    """

    items: Body
    picture_count: int
    others: list[LeftOut]
    other_count: int
    hidden_count: int


@contextmanager
def list_pictures(folder: S3Folder) -> Iterator[Listed]:
    """List the pictures in a folder and its subfolders, without hidden ones.

    An object is a picture by its suffix, or has none: its first bytes are not read. The id of an
    item is its key relative to the folder. The list is kept in a file during the block: it may be
    long, and a request that is sent again must have the same body.

    Raises:
        CommandFailed: S3 refuses the listing, or there are no pictures.
    """
    if importlib.util.find_spec("boto3") is None:
        raise CommandFailed(f"{folder}: listing it needs boto3: pip install 'piqueue[s3]'")
    picture_count = other_count = hidden_count = 0
    others: list[LeftOut] = []
    with tempfile.TemporaryFile() as found:
        with _explained(folder):
            for key in _keys(folder):
                item_id = key.removeprefix(folder.prefix)
                path = PurePosixPath(item_id)
                if any(map(is_hidden, path.parts)):
                    hidden_count += 1
                elif may_be_picture(path):
                    picture_count += 1
                    item = {"url": f"s3://{folder.bucket}/{key}", "id": item_id}
                    found.write(json.dumps(item).encode() + b"\n")
                else:
                    other_count += 1
                    if other_count <= LISTED:
                        others.append(LeftOut(item_id, "not a picture by its suffix"))
        if not picture_count:
            only = f", only {other_count + hidden_count} other objects"
            only = only if other_count + hidden_count else ""
            raise CommandFailed(f"{folder}: no pictures there{only}: check the prefix")

        def lines() -> Iterator[bytes]:
            found.seek(0)
            while part := found.read(READ_BYTES):
                yield part

        yield Listed(lines, picture_count, others, other_count, hidden_count)


def connect_s3() -> Any:
    """A client of S3, or of the server that the PIQUEUE_S3_ variables name."""
    from boto3.session import Session
    from botocore.config import Config

    path_style = os.environ.get("PIQUEUE_S3_PATH_STYLE", "").lower()
    return Session().client(
        "s3",
        endpoint_url=os.environ.get("PIQUEUE_S3_ENDPOINT_URL") or None,
        region_name=os.environ.get("PIQUEUE_S3_REGION") or None,
        config=Config(
            connect_timeout=3,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": _ADDRESSING.get(path_style, "auto")},
        ),
    )


def _keys(folder: S3Folder) -> Iterator[str]:
    """The keys of all objects, page by page, without the markers of folders."""
    pages = connect_s3().get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=folder.bucket, Prefix=folder.prefix):
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield entry["Key"]


@contextmanager
def _explained(folder: S3Folder) -> Iterator[None]:
    """Turn the errors of boto3 into messages that say what to do."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
    )

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code == "NoSuchBucket":
            raise CommandFailed(
                f"{folder}: there is no bucket {folder.bucket}: correct its name"
            ) from None
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise CommandFailed(
            f"{folder}: S3 answers {status} ({code}): check that your credentials have the "
            "permission s3:ListBucket"
        ) from None
    except NoCredentialsError:
        raise CommandFailed(
            f"{folder}: no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        ) from None
    except ParamValidationError:
        raise CommandFailed(
            f"{folder}: {folder.bucket} is not a valid bucket name: correct it"
        ) from None
    except BotoCoreError as error:
        raise CommandFailed(f"{folder} cannot be listed ({error}): try again") from None

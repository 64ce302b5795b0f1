"""A real S3 server for tests: the gateway of JuiceFS, with its data in a folder."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from scripts.local.stack import listenable_port
from scripts.local.supervised_process import SupervisedProcess

USER = "piqueue-tests"
PASSWORD = "correct-horse-battery"  # noqa: S105 - of an empty server on loopback
BUCKET = "pictures"
START_DEADLINE_S = 60.0


class S3Server:
    """Starts at once; `start` restarts a stopped one at the same address with the same data."""

    def __init__(self, folder: Path) -> None:
        program = str(Path(sys.executable).with_name("juicefs"))
        meta = f"sqlite3://{folder}/meta.db"
        data = ["--storage", "file", "--bucket", f"{folder}/data/", "--trash-days", "0"]
        subprocess.run(
            [program, "format", meta, "tests3", *data, "--no-update"],
            check=True,
            capture_output=True,
        )
        address = f"127.0.0.1:{listenable_port('127.0.0.1', 0)}"
        self.url = f"http://{address}"
        options = ["--multi-buckets", "--keep-etag", "--object-meta", "--no-usage-report"]
        places = ["--log", f"{folder}/juicefs.log", "--cache-dir", f"{folder}/cache"]
        self._process = SupervisedProcess(
            [program, "gateway", *options, *places, "--cache-size", "0", meta, address],
            folder / "gateway.log",
            env={"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD},
        )
        self.client = self._connect()
        self.start()
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that uses this server."""
        return {
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "PIQUEUE_S3_ENDPOINT_URL": self.url,
            "PIQUEUE_S3_REGION": "us-east-1",
            "PIQUEUE_S3_PATH_STYLE": "true",
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process.start()
        self._process.wait_until(self._answers, START_DEADLINE_S, "the S3 server")

    def stop(self) -> None:
        """Stop it; its data remain."""
        self._process.stop(grace_s=5)

    def keys(self, prefix: str) -> list[str]:
        """List the objects whose key begins with `prefix`; this server lists empty folders too."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        found = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return [key for key in found if not key.endswith("/")]

    def put(self, key: str, payload: bytes) -> str:
        """Write an object; gives its s3:// URL."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=payload)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        """Read an object."""
        payload: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return payload

    def _answers(self) -> bool:
        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def _connect(self) -> Any:
        return Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=USER,
            aws_secret_access_key=PASSWORD,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

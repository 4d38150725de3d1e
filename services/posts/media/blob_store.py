"""Where the variants of images are kept: a folder per image, in it a blob per variant.

Two kinds of store keep the same promises: files (`file_blobs.py`) and a bucket of S3 (`s3_blobs.py`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from chassis.settings import MediaBucket, SettingError, Settings

# How much of a blob is handed out at once, at most.
CHUNK_BYTES = 256 * 1024

_FOLDER = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[a-z0-9_-]{1,32}(\.[a-z0-9]{1,8})?")


class BlobStoreError(Exception):
    """A store could not do what it was asked for. Raised as one of the subclasses, with a sentence."""


class BlobStoreAway(BlobStoreError):
    """The store cannot be reached, is too slow, or fails: trying again helps."""

    def __init__(self) -> None:
        super().__init__("the store of the images cannot be reached; try again later")


class BlobStoreFull(BlobStoreError):
    """There is no space."""

    def __init__(self) -> None:
        super().__init__("the store of the images is full")


class BlobMissing(BlobStoreError):
    """There is no such blob."""

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(f"there is no image {folder}/{name}")


class BlobTooBig(BlobStoreError):
    """A blob has more bytes than were asked for at most."""

    def __init__(self, folder: str, name: str, most: int) -> None:
        super().__init__(f"the image {folder}/{name} is larger than {most} bytes")


class Blob(NamedTuple):
    """A blob to be stored."""

    name: str
    content_type: str
    data: bytes


class StoredFolder(NamedTuple):
    """What a store has of an image.

    Attributes:
        size: Bytes, of all blobs.
        change_time: When the newest of them was stored, in microseconds since 1970.
    """

    name: str
    blobs: frozenset[str]
    size: int
    change_time: int


class UploadTarget(NamedTuple):
    """A form to be posted to an address (multipart/form-data): these fields, and last of all a field `file`."""

    url: str
    fields: Mapping[str, str]


class BlobStore(Protocol):
    """Keeps blobs in folders. For one event loop; `folders` is for commands.

    A folder's name is 32 random hexadecimal digits; a blob's is such as 320.webp. What has other names is a ValueError.
    """

    @property
    def serves_files(self) -> Path | None:
        """The folder whose files an HTTP server is to serve, as FOLDER/NAME. None: clients load from the store."""

    @property
    def url_seconds(self) -> int | None:
        """For how long an address is good at least when it is handed out. None: as long as the blob is there."""

    async def put(self, folder: str, blobs: Sequence[Blob]) -> None:
        """Store blobs, in place of those of the same names. All are lasting when it returns.

        Raises:
            BlobStoreAway: they are not all stored.
            BlobStoreFull: there is no space for all of them.
        """

    def read(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob, in chunks of up to `CHUNK_BYTES`, of which few are in memory at once.

        Raises:
            BlobMissing: there is no such blob.
            BlobStoreAway: it cannot be read, or not to its end.
        """

    async def fetch(self, folder: str, name: str, most: int) -> bytes:
        """A whole blob.

        Raises:
            BlobMissing: there is no such blob.
            BlobTooBig: it has more than `most` bytes. They have not been read.
            BlobStoreAway: it cannot be read.
        """

    async def delete(self, folder: str) -> None:
        """Delete a folder and all that is in it, if it is there.

        Raises:
            BlobStoreAway: some of it may be left.
        """

    def folders(self) -> Iterator[StoredFolder]:
        """All folders in the order of their names; those that come or go meanwhile may be among them or not.

        Raises:
            BlobStoreAway: they cannot be listed, or not to the end.
        """

    def url(self, folder: str, name: str) -> str:
        """The address from which clients load a blob. It is made without asking the store."""

    def upload_target(self, folder: str, name: str, content_type: str, size: int, seconds: int) -> UploadTarget | None:
        """Where a client can upload this blob, and nothing else, within so many seconds. None: not to this store.

        Args:
            size: In bytes. An upload of another size is refused.
        """

    def close(self) -> None:
        """Let go of threads and connections."""


def checked_folder(folder: str) -> str:
    """The name of a folder.

    Raises:
        ValueError: it is none.
    """
    if not _FOLDER.fullmatch(folder):
        raise ValueError(f"not the name of a folder of blobs: {folder!r}")
    return folder


def checked_name(name: str) -> str:
    """The name of a blob.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a blob: {name!r}")
    return name


def is_folder(text: str) -> bool:
    """Whether this is the name of a folder."""
    return _FOLDER.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether this is the name of a blob."""
    return _NAME.fullmatch(text) is not None


def open_blob_store(settings: Settings) -> BlobStore:
    """The store that the settings name.

    Raises:
        SettingError: it cannot be opened; says what to change.
    """
    place = settings.media_url
    setting = f"INSTA_MEDIA_URL={place}"
    # Each kind is imported where it is used: boto3 need not be there, and takes a quarter of a second.
    if (root := settings.media_folder) is not None:
        from services.posts.media.file_blobs import FileBlobs

        try:
            return FileBlobs(root, settings.media_base_url)
        except OSError as failure:
            raise SettingError(f"{setting}: cannot use {root}: {failure.strerror}. Name another folder.") from None
    assert isinstance(place, MediaBucket)
    try:
        from services.posts.media.s3_blobs import NoCredentials, S3Blobs
    except ModuleNotFoundError as missing:
        if missing.name not in ("boto3", "botocore"):
            raise
        raise SettingError(f"{setting}: S3 needs boto3. Install it: pip install 'insta[s3]'") from None
    try:
        return S3Blobs(
            place.name,
            place.prefix,
            endpoint=settings.media_s3_endpoint,
            public_url=settings.media_public_url,
            url_seconds=settings.media_url_seconds,
        )
    except NoCredentials:
        text = "S3 needs credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another source of AWS tools."
        raise SettingError(f"{setting}: {text}") from None

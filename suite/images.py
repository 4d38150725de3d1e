"""The store of images, as commands use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from chassis.settings import SettingError, Settings
from services.posts.media.blob_store import BlobStore, BlobStoreError, open_blob_store


def place_of(settings: Settings) -> str:
    """Where it is: a folder, or s3://BUCKET/PREFIX."""
    return str(settings.media_folder or settings.media_url)


@contextmanager
def store_of_images(settings: Settings) -> Iterator[BlobStore]:
    """The store that the settings name. What fails in it within becomes a sentence.

    Raises:
        click.ClickException: it cannot be used.
    """
    try:
        blobs = open_blob_store(settings)
    except SettingError as wrong:
        raise click.ClickException(str(wrong)) from None
    try:
        with closing(blobs):
            yield blobs
    except BlobStoreError as failure:
        raise click.ClickException(f"INSTA_MEDIA_URL={settings.media_url}: {failure}.") from None


def mostly_unknown(unknown: int, stored: int) -> bool:
    """Whether the database may be that of another suite: it does not know most of what the store holds."""
    return unknown * 2 > stored

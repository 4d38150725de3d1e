"""Suites with images, and the folder that those are in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from insta.gateway.v1 import media_pb2
from tests.people import People
from tests.running import running

DAY_SECONDS = 24 * 3600


def suite_with_images(data: Path) -> tuple[Mapping[str, str], list[str]]:
    """The environment of a suite that is stopped, and the folders of its images: two that a post shows, and three that
    nothing does."""
    with running("together", data) as suite, ThreadPoolExecutor(1) as thread:
        folders = thread.submit(asyncio.run, _share(suite.address)).result()
    return suite.environment, folders


async def _share(address: str) -> list[str]:
    people = People(address)
    ana = await people.join()
    uploaded = [await ana.upload() for _ in range(5)]
    await ana.post(media_ids=[image.id for image in uploaded[:2]])
    await people.channel.close()
    return list(map(folder_of, uploaded))


def folder_of(image: media_pb2.Media) -> str:
    return image.variants[0].url.split("/")[-2]


def store_of(environment: Mapping[str, str]) -> Path:
    return Path(environment["INSTA_DATA"]) / "media"


def stored(environment: Mapping[str, str]) -> set[str]:
    """The folders in the store."""
    return {path.name for path in store_of(environment).iterdir() if not path.name.startswith(".")}


def leave_unknown(environment: Mapping[str, str], age_seconds: float) -> str:
    """Put a folder into the store that no database knows."""
    folder = store_of(environment) / os.urandom(16).hex()
    folder.mkdir()
    blob = folder / "320.webp"
    blob.write_bytes(b"x" * 1234)
    then = time.time() - age_seconds
    os.utime(blob, (then, then))
    return folder.name

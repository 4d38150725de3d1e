"""Fixtures: what images are made and kept with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.posts.media.workshop import Workshop
from tests.posts.media.mishaps import Premises, loop_and_workshop


@pytest.fixture(scope="module")
def loop_and_its_workshop() -> Iterator[tuple[asyncio.AbstractEventLoop, Workshop]]:
    with loop_and_workshop() as made:
        yield made


@pytest.fixture
def premises(loop_and_its_workshop: tuple[asyncio.AbstractEventLoop, Workshop]) -> Iterator[Premises]:
    with closing(Premises(*loop_and_its_workshop)) as opened:
        yield opened

"""Fixtures: what images are kept in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.posts.media.s3_server import S3Server, serving


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server, started for the first test that needs it."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server

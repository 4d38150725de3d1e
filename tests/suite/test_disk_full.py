"""The suite on a disk that is full, its log too: reads go on, and writes once there is space."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from insta.gateway.v1 import posts_pb2, profiles_pb2
from tests import databases, disks
from tests.people import Failure, People, Person, until
from tests.running import running

pytestmark = pytest.mark.sqlite

REFUSED = {(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"), (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path / "disk", megabytes=16) as folder:
        yield folder


async def outcome(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        failed = Failure(error)
        return failed.code, failed.reason
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("mode", ["together", "apart", pytest.param("workers", marks=pytest.mark.soak)])
async def test_reads_go_on_while_the_disk_is_full_and_writes_within_5_seconds_after(
    mode: str, small_disk: Path
) -> None:
    with running(mode, small_disk / "var", superuser=False) as suite:
        people = People(suite.address)
        ana, ben = await people.join(), await people.join()
        post = await ana.post()
        ballast = disks.fill_up(small_disk)
        liked = 0

        def writes(person: Person) -> list[Any]:
            return [
                person.posts.CreatePost(posts_pb2.CreatePostRequest(title="x" * 200, description="x" * 2000)),
                person.posts.CreateComment(posts_pb2.CreateCommentRequest(post_id=post.id, text="x" * 1000)),
                person.profiles.FollowUser(profiles_pb2.FollowUserRequest(user_id=post.author.id)),
            ]

        # What is left of the last page of a file may take some.
        while {await outcome(call) for call in writes(ben)} - REFUSED:
            liked += 1
            assert liked < 1000
        for _ in range(10):
            assert {await outcome(call) for call in writes(ben)} <= REFUSED
            assert (await ben.see(post)).id == post.id
            assert (await ben.profile(ana)).id == ana.id
        ballast.unlink()
        began = time.monotonic()

        async def all_well() -> bool:
            return {await outcome(call) for call in writes(ben)} == {(grpc.StatusCode.OK, "")}

        await until(all_well)
        assert time.monotonic() - began < 5
        assert (await ben.profile(ben)).post_count == len(
            databases.rows(suite, "posts", "SELECT id FROM post WHERE author_id = ?", [ben.id])
        )
        assert databases.wrong_counters(suite) == {}
        await people.channel.close()

"""Posts that are so large, for what is said of their images, that clients could not receive a hundred of them."""

from __future__ import annotations

import json
from typing import NamedTuple

import grpc
import pytest
import pytest_asyncio

from chassis.settings import from_environment
from chassis.store import Database
from insta.gateway.v1 import feed_pb2, posts_pb2, profiles_pb2
from services.posts.models import Media
from suite import bulk
from tests.end_to_end.lists import everything
from tests.people import People, Person, failure
from tests.running import RunningSuite

# What gRPC's clients receive, unless they are told otherwise.
CLIENTS_RECEIVE = 4 * 1024 * 1024
POSTS = 100
IMAGES = 10
# As many characters as the contract allows, as many bytes each as there are.
ALT_TEXT = "\N{GRINNING FACE}" * 1000


class Wordy(NamedTuple):
    """Somebody who wrote a hundred large posts.

    Attributes:
        post_ids: The newest first.
    """

    author: Person
    follower: Person
    post_ids: list[int]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def wordy(suite: RunningSuite, people: People) -> Wordy:
    if suite.mode == "there":
        pytest.skip("needs the suite's databases")
    author, follower = await people.join(), await people.join()
    await follower.follow(author)
    with bulk.open_stores(from_environment(suite.environment)) as stores:
        post_ids = stores["posts"].write_now(lambda db: _write(db, author.id))
    return Wordy(author, follower, post_ids[::-1])


async def test_the_feed_is_read_to_its_end(wordy: Wordy) -> None:
    feed = wordy.follower.feed.ListHomeFeed

    first = await feed(feed_pb2.ListHomeFeedRequest(page_size=POSTS))
    second = await feed(feed_pb2.ListHomeFeedRequest(page_size=POSTS, page_token=first.next_page_token))

    assert CLIENTS_RECEIVE / 2 < first.ByteSize() < CLIENTS_RECEIVE
    assert second.next_page_token == ""
    found = [*first.posts, *second.posts]
    assert [post.id for post in found] == wordy.post_ids
    assert {len(post.media) for post in found} == {IMAGES}


async def test_a_profile_is_read_to_its_end(wordy: Wordy) -> None:
    request = profiles_pb2.ListProfilePostsRequest(user_id=wordy.author.id)

    found = await everything(wordy.follower.profiles.ListProfilePosts, request)

    assert [post.id for post in found] == wordy.post_ids


async def test_the_page_size_may_be_such_that_pages_are_full(wordy: Wordy) -> None:
    request = feed_pb2.ListHomeFeedRequest(page_size=20)

    page = await wordy.follower.feed.ListHomeFeed(request)

    assert [post.id for post in page.posts] == wordy.post_ids[:20]


async def test_who_asks_for_too_many_at_once_is_told_to_ask_for_fewer(wordy: Wordy) -> None:
    read = wordy.follower.posts.BatchGetPosts

    failed = await failure(read(posts_pb2.BatchGetPostsRequest(post_ids=wordy.post_ids)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
    half = wordy.post_ids[: POSTS // 2]
    answer = await read(posts_pb2.BatchGetPostsRequest(post_ids=half))
    assert [post.id for post in answer.posts] == half


def _write(db: Database, author_id: int) -> list[int]:
    """A hundred posts by somebody, each with ten images, of which there are the rows. Their ids."""
    post = {"author_id": author_id, "title": "Wordy", "description": "", "image_urls": "[]", "create_time": 1}
    post_ids = bulk.add_posts([post] * POSTS, db)
    variants = [(320, 240, "image/webp", 1000), (320, 240, "image/jpeg", 2000)]
    image = {
        "owner_id": author_id,
        "content_type": "image/jpeg",
        "width": 320,
        "height": 240,
        "blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj",
        "alt_text": ALT_TEXT,
        "variants": json.dumps(variants),
        "create_time": 1,
    }
    rows = [
        {**image, "folder": f"{author_id:012x}{post_id:016x}{position:04x}", "post_id": post_id, "position": position}
        for post_id in post_ids
        for position in range(IMAGES)
    ]
    for start in range(0, len(rows), 100):
        db.execute(Media.insert_many(rows[start : start + 100]))
    return post_ids

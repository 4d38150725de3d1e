"""The home feed of who follows very many, which is found in other ways than that of others and holds the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Set
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from benchmarks import data, sizes
from benchmarks.sizes import Network, Size
from chassis.settings import Settings
from insta.gateway.v1 import feed_pb2, feed_pb2_grpc
from suite import bulk
from tests.people import WithToken
from tests.running import RunningSuite, running

# As many are too many to look at each of them first. A twelfth of the posts are theirs: a long page takes several looks.
MANY = 1_600
SIZE = Size(
    "big",
    people=24_000,
    authors=18_000,
    posts=20_000,
    likes=20,
    star_followers=10,
    hit_likes=10,
    readers=((1, 20), (1, MANY)),
)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(SIZE)


@pytest.fixture(scope="module")
def quiet_reader(network: Network) -> int:
    """Somebody who follows very many, of whom only the star writes."""
    following = {follower for _, follower, _ in network.follows()}
    return min(set(range(1, SIZE.people + 1)) - _busy(network) - following)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory, network: Network, quiet_reader: int) -> Iterator[RunningSuite]:
    """A suite that holds the network."""
    folder: Path = tmp_path_factory.mktemp("big") / "var"
    sizes.fill(network, folder)
    silent = sorted(set(range(1, SIZE.people + 1)) - _busy(network) - {quiet_reader})[:MANY]
    with bulk.open_stores(Settings(data=folder)) as stores:
        follows = [(0, quiet_reader, followee) for followee in [*silent, network.star]]
        stores["social"].write_now(lambda db: bulk.add_follows(follows, db))
    with running("together", folder, superuser=False) as started:
        yield started


@pytest.mark.parametrize("page_size", [20, 100])
async def test_it_is_read_to_its_end(big: RunningSuite, network: Network, page_size: int) -> None:
    (reader,) = network.readers[MANY]
    followees = {followee for _, follower, followee in network.follows() if follower == reader}
    assert len(followees) == MANY

    async with _feed_of(big, reader) as feed:
        assert await _read(feed, page_size) == _posts_of(network, followees)


async def test_the_posts_of_one_are_found_among_those_of_very_many_others(
    big: RunningSuite, network: Network, quiet_reader: int
) -> None:
    async with _feed_of(big, quiet_reader) as feed:
        assert await _read(feed, 10) == _posts_of(network, {network.star})


def _busy(network: Network) -> set[int]:
    """Who writes."""
    return {network.star, *network.prolific, *network.authors}


def _posts_of(network: Network, authors: Set[int]) -> list[int]:
    """The ids of their posts, the newest first."""
    return [number for number, post in enumerate(network.posts(), 1) if post["author_id"] in authors][::-1]


@asynccontextmanager
async def _feed_of(suite: RunningSuite, user_id: int) -> AsyncIterator[feed_pb2_grpc.FeedServiceStub]:
    settings = Settings(data=Path(suite.environment["INSTA_DATA"]))
    (token,) = await asyncio.to_thread(data.access_tokens, settings, [user_id])
    async with grpc.aio.insecure_channel(suite.address) as channel:
        yield feed_pb2_grpc.FeedServiceStub(WithToken(channel, token))


async def _read(feed: feed_pb2_grpc.FeedServiceStub, page_size: int) -> list[int]:
    """The ids of all posts, page by page; each page is full, but for the last."""
    found: list[int] = []
    token = ""
    while True:
        request = feed_pb2.ListHomeFeedRequest(page_size=page_size, page_token=token)
        answer = await feed.ListHomeFeed(request)
        found += [post.id for post in answer.posts]
        token = answer.next_page_token
        if not token:
            return found
        assert len(answer.posts) == page_size

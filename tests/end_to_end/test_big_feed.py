"""The home feed of who follows very many, which is found in other ways than that of others and holds the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from benchmarks import data, sizes
from benchmarks.sizes import Network, Size
from chassis.settings import from_environment
from insta.gateway.v1 import feed_pb2, feed_pb2_grpc
from suite import bulk
from tests.people import WithToken
from tests.running import RunningSuite, environment, running

# As many are too many to look at each of them first.
MANY = 1_000
SIZE = Size("big", people=24_000, authors=18_000, posts=20_000, likes=20, star_followers=10, hit_likes=10, readers=())
# Of those whom somebody follows so many write: their posts are close together, or less so, or a few among very many.
WRITING = (MANY, 450, 1)
# More than are sorted at once.
VERY_MUCH = 600


@dataclass(frozen=True)
class Big:
    """A suite that holds a network.

    Attributes:
        followees: Whom somebody follows, by their id: as many write as `WRITING` says, in its order.
        fan: Follows a few, of whom one has written `VERY_MUCH` after everybody else.
        fed: The posts in the fan's feed.
    """

    suite: RunningSuite
    network: Network
    followees: Mapping[int, Sequence[int]]
    fan: int
    fed: Sequence[int]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Big]:
    folder: Path = tmp_path_factory.mktemp("big") / "var"
    network = Network(SIZE)
    sizes.fill(network, folder, environment=environment(folder))
    authors = [network.star, *network.prolific, *network.authors]
    random.Random(1).shuffle(authors)
    following = {follower for _, follower, _ in network.follows()}
    silent = sorted(set(range(1, SIZE.people + 1)) - {*authors, *following})
    followees = {silent.pop(): [*authors[:count], *silent[: MANY - count]] for count in WRITING}
    follows = [(0, follower, followee) for follower, some in followees.items() for followee in some]
    fan, poet, *few = silent.pop(), silent.pop(), *authors[:5]
    follows += [(0, fan, followee) for followee in (poet, *few)]
    posts = [{**next(network.posts()), "author_id": poet} for _ in range(VERY_MUCH)]
    with bulk.open_stores(from_environment(environment(folder))) as stores:
        stores["social"].write_now(lambda db: bulk.add_follows(follows, db))
        written = stores["posts"].write_now(lambda db: bulk.add_posts(posts, db))
    with running("together", folder, superuser=False) as started:
        yield Big(started, network, followees, fan, [*reversed(written), *_posts_of(network, set(few))])


@pytest.mark.parametrize("page_size", [20, 100])
@pytest.mark.parametrize("reader", range(len(WRITING)), ids=[f"{count} write" for count in WRITING])
async def test_it_is_read_to_its_end(big: Big, reader: int, page_size: int) -> None:
    user_id, followees = list(big.followees.items())[reader]

    async with _feed_of(big.suite, user_id) as feed:
        assert await _read(feed, page_size) == _posts_of(big.network, set(followees))


async def test_one_who_writes_very_much_keeps_nobody_out(big: Big) -> None:
    async with _feed_of(big.suite, big.fan) as feed:
        assert await _read(feed, 50) == big.fed


def _posts_of(network: Network, authors: Set[int]) -> list[int]:
    """The ids of their posts, the newest first."""
    return [number for number, post in enumerate(network.posts(), 1) if post["author_id"] in authors][::-1]


@asynccontextmanager
async def _feed_of(suite: RunningSuite, user_id: int) -> AsyncIterator[feed_pb2_grpc.FeedServiceStub]:
    settings = from_environment(suite.environment)
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

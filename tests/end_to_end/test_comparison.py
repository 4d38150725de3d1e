"""Changes under way while a service compares what it has with another service, instead of reading its event log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import grpc
import pytest
from click.testing import CliRunner

from chassis import events
from insta.gateway.v1 import posts_pb2
from suite.composition import SERVICES
from suite.main import main
from tests import databases
from tests.deletions import counters_are_right, delete_account, delete_post, nothing_left
from tests.people import People, Person, failure, until
from tests.running import RunningSuite

pytestmark = pytest.mark.inside

# Which services read the log of which.
READERS = {"posts": ["social"], "users": ["posts", "social"]}


class Late(NamedTuple):
    """A change that is about to be made when what it refers to goes.

    Attributes:
        service: Where it is made, once that is possible.
        log: Of the service that owns what goes.
        change, goes: The calls.
        left: Ids of users and posts of whom nothing may be left.
    """

    service: str
    log: str
    change: Callable[[], Awaitable[Any]]
    goes: Callable[[], Awaitable[Any]]
    left: tuple[Sequence[int], Sequence[int]]


async def like(ana: Person, ben: Person) -> Late:
    post = await ana.post()
    return Late("social", "posts", lambda: ben.like(post), lambda: delete_post(ana, post), ([], [post.id]))


async def follow(ana: Person, ben: Person) -> Late:
    return Late("social", "users", lambda: ben.follow(ana), lambda: delete_account(ana), ([ana.id], []))


async def like_of_ones_last(ana: Person, ben: Person) -> Late:
    post = await ana.post()
    return Late("social", "users", lambda: ben.like(post), lambda: delete_account(ben), ([ben.id], []))


async def post_of_ones_last(ana: Person, ben: Person) -> Late:
    return Late("posts", "users", ben.post, lambda: delete_account(ben), ([ben.id], []))


@pytest.mark.parametrize("prepare", [like, follow, like_of_ones_last, post_of_ones_last])
async def test_a_change_that_is_made_after_a_comparison_leaves_nothing_of_what_went_before_it(
    suite: RunningSuite, people: People, prepare: Callable[[Person, Person], Awaitable[Late]]
) -> None:
    ana, ben, other = [await people.join() for _ in range(3)]
    late = await prepare(ana, ben)
    post = await other.post()

    async def pass_by() -> None:
        """What began before this has come as far as it can meanwhile, when this is over."""
        hopeless = {
            "social": lambda: other.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id), timeout=0.5),
            "posts": lambda: other.posts.CreatePost(posts_pb2.CreatePostRequest(title="Late"), timeout=0.5),
        }
        assert (await failure(hopeless[late.service]())).code is grpc.StatusCode.DEADLINE_EXCEEDED

    await until(lambda: all_read(suite, late.log))
    compared = comparisons(suite, late.log)
    with held(suite, late.service):
        change = asyncio.ensure_future(late.change())
        await pass_by()
        renew(suite, late.log)
        await late.goes()

        async def comparing() -> bool:
            return comparisons(suite, late.log) == compared + len(READERS[late.log])

        await until(comparing)
        await pass_by()
    await asyncio.gather(change, return_exceptions=True)

    await until(lambda: all_read(suite, late.log))
    await nothing_left(suite, *late.left)
    await counters_are_right(suite)
    audit = CliRunner().invoke(main, ["audit"], env=suite.environment)
    assert audit.exit_code == 0, audit.output


@contextmanager
def held(suite: RunningSuite, service: str) -> Iterator[None]:
    """Let nothing be written in the database of a service."""
    with databases.writers_held(databases.path_of(suite, service)):
        yield


def renew(suite: RunningSuite, service: str) -> None:
    """Make the log of a service another one, as a restore does: whoever reads it has to compare."""
    migrations = SERVICES[service].migrations
    assert migrations is not None
    with closing(databases.open_store(databases.path_of(suite, service), migrations)) as store:
        store.write_now(events.renew)


async def all_read(suite: RunningSuite, log: str) -> bool:
    """Whether everybody has read a log to its head."""
    ((epoch,),) = databases.rows(suite, log, "SELECT epoch FROM event_log")
    ((head,),) = databases.rows(suite, log, "SELECT MAX(id) FROM logged_event")
    query = 'SELECT epoch, "offset" FROM cursor WHERE log = ?'
    return all(databases.rows(suite, reader, query, [log]) == [(epoch, head)] for reader in READERS[log])


def comparisons(suite: RunningSuite, log: str) -> int:
    """How often somebody began to compare with the owner of a log."""
    assert suite.log is not None
    lines = [json.loads(line) for line in suite.log.read_text().splitlines() if line.startswith("{")]
    return sum(line["event"].startswith("event log cannot be read on") and line["log"] == log for line in lines)

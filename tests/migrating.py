"""A newer version that adds to the database of likes while this one serves it, and this one afterwards."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from insta.gateway.v1 import posts_pb2
from tests import databases
from tests.deletions import Crowd, done
from tests.people import People, Person
from tests.running import ON_POSTGRESQL, RunningSuite, environment, insta

PROJECT = Path(__file__).parents[1]
NAME = "0999_mood"
ADDS_A_COLUMN = """
import peewee


def up(migrator, db):
    mood = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 7")])
    migrator.migrate(
        migrator.add_column("like", "mood", mood, allow_not_null=True),
        migrator.add_index("like", ("mood", "create_time")),
    )
"""
FAILS = f"{ADDS_A_COLUMN}    raise LookupError('in the middle')\n"
_CROWD = 4


@dataclass(frozen=True)
class Migrated:
    """What came of it.

    Attributes:
        seconds: How long nobody could write.
        longest: The longest time that a client spent on a round of seven calls.
    """

    seconds: float
    longest: float


def newer_version(folder: Path, migration: str) -> Path:
    """The code of a version that has one more migration of the social service."""
    social = folder / "services" / "social"
    social.parent.mkdir(parents=True)
    shutil.copytree(PROJECT / "services" / "social", social)
    (social / "migrations" / f"{NAME}.py").write_text(migration)
    for part in (*PROJECT.glob("*/__init__.py"), *PROJECT.glob("services/*/__init__.py")):
        copy = folder / part.parent.relative_to(PROJECT)
        if not copy.exists():
            copy.symlink_to(part.parent)
    return folder


async def migrate_while_serving(suite: RunningSuite, newer: Path) -> Migrated:
    """Have two processes of a newer version start at once while people use the suite. None of their calls may fail."""
    people = People(suite.address)
    crowd = await _crowd(people)
    await done(crowd, 10)
    logs = await asyncio.gather(*(_audit(newer, suite.environment) for _ in range(2)))
    await done(crowd, 20)
    # Whatever any of them met, fails here.
    await crowd.stop()
    await people.channel.close()
    (applied,) = [line for log in logs for line in said(log, "migration applied")]
    assert applied["migration"] == NAME
    return Migrated(float(str(applied["seconds"])), max(crowd.seconds))


async def write_and_look(suite: RunningSuite, likes: int) -> None:
    """Like something in this version. All of so many likes have the new column, and it its index."""
    people = People(suite.address)
    ana = await people.join()
    await ana.like(await ana.post())
    assert databases.rows(suite, "social", 'SELECT mood, COUNT(*) FROM "like" GROUP BY 1') == [(7, likes)]
    indexes = (
        "SELECT indexdef FROM pg_indexes" if ON_POSTGRESQL else "SELECT sql FROM sqlite_master WHERE type = 'index'"
    )
    assert sum("mood" in (sql or "") for (sql,) in databases.rows(suite, "social", indexes)) == 1
    await people.channel.close()


def warnings_in(log: str) -> list[dict[str, object]]:
    """Where a process said that a database is newer than its code."""
    return said(log, "database is newer than this version of insta")


def said(log: str, event: str) -> list[dict[str, object]]:
    """The lines of a log that tell of an event."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def likes_made(data: Path, count: int) -> None:
    """Fill new databases with so many likes."""
    sizes = ("--users", "1000", "--posts", "1000", "--likes", str(count), "--comments", "0", "--follows", "0")
    made = insta("demo", *sizes, environment=environment(data))
    assert made.returncode == 0, made.stderr


async def _audit(version: Path, given: Mapping[str, str]) -> str:
    """Have a version look at the databases, and find nothing. What it logged."""
    audit = await asyncio.to_thread(insta, "audit", environment=given, version=version)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    return audit.stderr


async def _crowd(people: People) -> Crowd:
    """People who read, like and comment on each other's posts."""
    crowd = Crowd()
    members = [await people.join() for _ in range(_CROWD)]
    posts = [await member.post() for member in members]
    for member in members:
        crowd.start([partial(_live, member, post) for post in posts], clients=1)
    return crowd


async def _live(member: Person, post: posts_pb2.Post) -> None:
    await member.like(post)
    assert (await member.see(post)).viewer_liked
    await member.comment(post)
    await member.posts.ListPostLikes(posts_pb2.ListPostLikesRequest(post_id=post.id))
    await member.posts.ListComments(posts_pb2.ListCommentsRequest(post_id=post.id))
    await member.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id))
    assert not (await member.see(post)).viewer_liked

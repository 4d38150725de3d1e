"""An account with very much to delete, put into the databases of a running suite."""

from __future__ import annotations

import itertools
import statistics
import time
from contextlib import closing
from dataclasses import dataclass

from insta.gateway.v1 import posts_pb2
from tests import databases
from tests.deletions import Crowd, counters_are_right, delete_account, done, erased, nothing_left
from tests.people import People, Person, until
from tests.running import RunningSuite

_WRITERS = 4
_NUMBERS = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"


@dataclass(frozen=True)
class Deleted:
    """How the deletion of an account went.

    Attributes:
        seconds: Until nothing was left of it.
        before: How long each write of others took before, in seconds, the shortest first.
        meanwhile: How long each took while it went on.
    """

    seconds: float
    before: list[float]
    meanwhile: list[float]

    def __str__(self) -> str:
        return f"deleted in {self.seconds:.1f} s; before: {_told(self.before)}; meanwhile: {_told(self.meanwhile)}"


def p99(seconds: list[float]) -> float:
    """What 99 of 100 took less than. The shortest comes first."""
    return seconds[len(seconds) * 99 // 100]


def _told(seconds: list[float]) -> str:
    median, most, longest = (1000 * value for value in (statistics.median(seconds), p99(seconds), seconds[-1]))
    return f"{len(seconds)} writes, median {median:.1f} ms, p99 {most:.1f} ms, longest {longest:.1f} ms"


async def delete_big_account(
    suite: RunningSuite, people: People, *, likes: int, posts: int, undisturbed: int
) -> Deleted:
    """Delete an account with many likes and posts while others write, who have done so many writes before."""
    boss = await people.superuser()
    gone, author, fan = [await people.join() for _ in range(3)]
    # A post that is liked is one of somebody else.
    liked = _add_posts(suite, author, likes)
    _add_likes(suite, gone, liked)
    written = _add_posts(suite, gone, posts)
    _add_likes(suite, fan, written)
    crowd = Crowd()
    for _ in range(_WRITERS):
        writer = await people.join()
        own = await writer.post()
        deeds = [
            lambda writer=writer, post=own: writer.like(post),
            lambda writer=writer, post=own: writer.comment(post),
            lambda writer=writer: writer.post(),
            lambda writer=writer: writer.follow(author),
            lambda writer=writer, post=own: writer.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id)),
        ]
        crowd.start(deeds, clients=1)
    await done(crowd, undisturbed)
    before, crowd.seconds = sorted(crowd.seconds), []
    began = time.monotonic()
    await delete_account(gone)
    await erased(boss, gone.id, seconds=300)

    async def nothing_of_it() -> bool:
        some = itertools.islice(reversed(written), 500)
        return not databases.left_of_posts(suite, some)

    await until(nothing_of_it, seconds=300)
    seconds = time.monotonic() - began
    await crowd.stop()
    await nothing_left(suite, [gone.id], written, seconds=60)
    await counters_are_right(suite)
    return Deleted(seconds, before, sorted(crowd.seconds))


def _add_posts(suite: RunningSuite, author: Person, count: int) -> list[int]:
    now = time.time_ns() // 1000
    with closing(_opened(suite, "posts")) as opened, opened as database:
        database.execute(
            f"{_NUMBERS} INSERT INTO post (author_id, title, description, image_urls, create_time, update_time)"
            " SELECT ?, 'Post ' || n, '', '[]', ?, ? FROM number",
            (count, author.id, now, now),
        )
        database.execute(
            "INSERT INTO author_counter (author_id, post_count) VALUES (?, ?)"
            " ON CONFLICT (author_id) DO UPDATE SET post_count = excluded.post_count",
            (author.id, count),
        )
        return [row[0] for row in database.execute("SELECT id FROM post WHERE author_id = ?", (author.id,))]


def _add_likes(suite: RunningSuite, liker: Person, post_ids: list[int]) -> None:
    now = time.time_ns() // 1000
    with closing(_opened(suite, "social")) as opened, opened as database:
        database.executemany(
            'INSERT INTO "like" (user_id, post_id, create_time) VALUES (?, ?, ?)',
            ((liker.id, post_id, now) for post_id in post_ids),
        )
        database.executemany(
            "INSERT INTO post_counter (post_id, like_count, comment_count) VALUES (?, 1, 0)",
            ((post_id,) for post_id in post_ids),
        )


def _opened(suite: RunningSuite, service: str) -> databases.Connection:
    return databases.Connection(databases.path_of(suite, service))

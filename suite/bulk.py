"""Rows into the databases by the thousand, whether the suite is running or not; calls go on meanwhile.

Nothing is checked but what the databases check, and no event is logged: for data that are made up.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import peewee

from chassis.query import compiled, param
from chassis.settings import Settings
from chassis.store import POSTGRESQL, Database, Store
from services.posts.models import AuthorCounter, Post
from services.social.models import Comment, Follow, Like, PostCounter, UserCounter
from services.users.models import User
from suite.composition import SERVICES
from suite.databases import open_store

Row = TypeVar("Row")
Added = TypeVar("Added")

# How long the other writers of a database are to wait for a chunk of rows.
_HOLD_SECONDS = 0.025
_CHUNK_ROWS = (200, 20_000)


@contextmanager
def open_stores(settings: Settings) -> Iterator[dict[str, Store]]:
    """The databases of the services, by name."""
    with ExitStack() as opened:
        stores = {}
        for service in SERVICES.values():
            if service.migrations is not None:
                stores[service.name] = open_store(settings, service)
                opened.callback(stores[service.name].close)
        yield stores
        for store in stores.values():
            store.write_now(_take_stock)


def _take_stock(db: Database) -> None:
    """Let the planner of a server know at once of the many rows that it has now: else it looks minutes later."""
    if db.dialect == POSTGRESQL:
        db.execute_sql("ANALYZE")


def load(
    store: Store,
    rows: Iterator[Row],
    add: Callable[[list[Row], Database], Added],
    made: Callable[[int], None],
    hold_seconds: float = _HOLD_SECONDS,
    keep: Callable[[Added], None] = lambda added: None,
) -> None:
    """Add rows in transactions of about `hold_seconds`, each with the counters of its rows.

    How many rows one takes depends on the machine; what is stored does not.

    Args:
        keep: Told what `add` returned, once it is stored.
    """
    least, most = _CHUNK_ROWS
    size = least
    while chunk := list(itertools.islice(rows, size)):
        begun = 0.0

        def timed(db: Database, chunk: list[Row] = chunk) -> Added:
            nonlocal begun
            begun = time.perf_counter()
            return add(chunk, db)

        added = store.write_now(timed)
        held = time.perf_counter() - begun
        size = min(max(int(size * min(hold_seconds / held, 2)), least), most)
        keep(added)
        made(len(chunk))


_insert_post = compiled(
    Post.insert(
        author_id=param("author_id"),
        title=param("title"),
        description=param("description"),
        image_urls=param("image_urls"),
        create_time=param("create_time"),
        update_time=param("create_time"),
    ).returning(Post.id)
)
_user_columns = User._meta.sorted_fields[1:]
_insert_users = User.insert_many([(0,) * len(_user_columns)], fields=_user_columns)
_insert_likes = Like.insert_many([(0, 0, 0)], fields=[Like.create_time, Like.user_id, Like.post_id])
_insert_follows = Follow.insert_many([(0, 0, 0)], fields=[Follow.create_time, Follow.follower_id, Follow.followee_id])
_insert_comments = Comment.insert_many(
    [(0, 0, 0, 0, 0)],
    fields=[Comment.create_time, Comment.author_id, Comment.post_id, Comment.text, Comment.update_time],
)


def _adding(counter: type[peewee.Model]) -> peewee.Insert:
    """A query that adds a row of numbers to a counter: its key first, then the numbers in the order of its columns."""
    key, *counts = counter._meta.sorted_fields
    return counter.insert_many([(0,) * (1 + len(counts))], fields=[key, *counts]).on_conflict(
        conflict_target=[key], update={count: count + getattr(peewee.EXCLUDED, count.name) for count in counts}
    )


def add_users(rows: list[tuple[Any, ...]], db: Database) -> None:
    """Add accounts by the columns of their table after the id, in order."""
    _run_many(db, _insert_users, rows)


def add_posts(rows: list[dict[str, Any]], db: Database) -> list[int]:
    """Add posts by the names of their columns: author_id, title, description, image_urls, create_time. Their ids."""
    post_ids = [_inserted(_insert_post.one(db, **row)) for row in rows]
    counts = Counter(row["author_id"] for row in rows)
    _run_many(db, _adding(AuthorCounter), counts.items())
    return post_ids


def add_likes(rows: list[tuple[int, int, int]], db: Database) -> None:
    """Add likes as (create_time, user_id, post_id)."""
    _run_many(db, _insert_likes, rows)
    counts = Counter(post_id for _, _, post_id in rows)
    _run_many(db, _adding(PostCounter), ((post_id, count, 0) for post_id, count in counts.items()))


def add_comments(rows: list[tuple[int, int, int, str, int]], db: Database) -> None:
    """Add comments as (create_time, author_id, post_id, text, update_time)."""
    _run_many(db, _insert_comments, rows)
    counts = Counter(row[2] for row in rows)
    _run_many(db, _adding(PostCounter), ((post_id, 0, count) for post_id, count in counts.items()))


def add_follows(rows: list[tuple[int, int, int]], db: Database) -> None:
    """Add follows as (create_time, follower_id, followee_id)."""
    _run_many(db, _insert_follows, rows)
    followees = Counter(follower_id for _, follower_id, _ in rows)
    followers = Counter(followee_id for _, _, followee_id in rows)
    counts = ((user_id, followers[user_id], followees[user_id]) for user_id in followers | followees)
    _run_many(db, _adding(UserCounter), counts)


def _run_many(db: Database, query: peewee.Insert, rows: Iterable[Sequence[Any]]) -> None:
    """Run an insert for each of many rows: three times as fast as one call for each."""
    sql, _ = db.get_sql_context().sql(query).query()
    db.cursor().executemany(sql, rows)


def _inserted(row: Any) -> int:
    (row_id,) = row
    return int(row_id)

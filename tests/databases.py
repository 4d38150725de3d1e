"""The databases of a running suite, looked into from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from tests.running import RunningSuite

# Which columns of which database hold the id of a user, and of a post.
USER_COLUMNS = {
    "users": {"user": ("id",), "session": ("user_id",), "reply": ("caller_id", "about_id")},
    "posts": {
        "post": ("author_id",),
        "author_counter": ("author_id",),
        "media": ("owner_id", "avatar_of"),
        "upload": ("owner_id",),
        "discard": ("owner_id",),
        "reply": ("caller_id", "about_id"),
    },
    "social": {
        "like": ("user_id",),
        "comment": ("author_id",),
        "follow": ("follower_id", "followee_id"),
        "user_counter": ("user_id",),
        "reply": ("caller_id", "about_id"),
    },
}
POST_COLUMNS = {
    "posts": {"post": ("id",), "media": ("post_id",)},
    "social": {"like": ("post_id",), "comment": ("post_id",), "post_counter": ("post_id",)},
}
# What counts; in which database, and the rows that it counts.
COUNTERS = {
    "SELECT author_id, post_count FROM author_counter": ("posts", "SELECT author_id, COUNT(*) FROM post GROUP BY 1"),
    "SELECT post_id, like_count FROM post_counter": ("social", 'SELECT post_id, COUNT(*) FROM "like" GROUP BY 1'),
    "SELECT post_id, comment_count FROM post_counter": ("social", "SELECT post_id, COUNT(*) FROM comment GROUP BY 1"),
    "SELECT user_id, follower_count FROM user_counter": (
        "social",
        "SELECT followee_id, COUNT(*) FROM follow GROUP BY 1",
    ),
    "SELECT user_id, followee_count FROM user_counter": (
        "social",
        "SELECT follower_id, COUNT(*) FROM follow GROUP BY 1",
    ),
}


def path_of(suite: RunningSuite, service: str) -> Path:
    """The database of a service."""
    return Path(suite.environment["INSTA_DATA"]) / f"{service}.db"


def rows(suite: RunningSuite, service: str, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """What a query finds in the database of a service."""
    with closing(apsw.Connection(str(path_of(suite, service)), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        database.set_busy_timeout(10_000)
        return list(database.execute(query, values))


def left_of_users(suite: RunningSuite, user_ids: Iterable[int]) -> dict[str, int]:
    """How many rows refer to one of these users, by table and column; those without any are left out."""
    return _left(suite, USER_COLUMNS, user_ids)


def left_of_posts(suite: RunningSuite, post_ids: Iterable[int]) -> dict[str, int]:
    """How many rows refer to one of these posts, by table and column; those without any are left out."""
    return _left(suite, POST_COLUMNS, post_ids)


def wrong_counters(suite: RunningSuite) -> dict[str, set[tuple[Any, ...]]]:
    """Counters that differ from the rows that they count."""
    return counted_wrongly({service: path_of(suite, service) for service in ("posts", "social")})


def counted_wrongly(paths: Mapping[str, Path]) -> dict[str, set[tuple[Any, ...]]]:
    """As `wrong_counters`, of the databases of these services."""
    wrong = {}
    for counters, (service, counted) in COUNTERS.items():
        if service not in paths:
            continue
        with closing(apsw.Connection(str(paths[service]), flags=apsw.SQLITE_OPEN_READONLY)) as database:
            database.set_busy_timeout(10_000)
            # In one transaction, so that both see the same moment.
            with database:
                stored = {row for row in database.execute(counters) if row[1]}
                found = set(database.execute(counted))
        if stored != found:
            wrong[counters] = stored ^ found
    return wrong


def _left(
    suite: RunningSuite, columns: Mapping[str, Mapping[str, tuple[str, ...]]], ids: Iterable[int]
) -> dict[str, int]:
    among = ",".join(map(str, ids))
    left = {}
    for service, tables in columns.items():
        for table, names in tables.items():
            for name in names:
                query = f'SELECT COUNT(*) FROM "{table}" WHERE {name} IN ({among})'
                ((count,),) = rows(suite, service, query)
                if count:
                    left[f"{service}.{table}.{name}"] = count
    return left

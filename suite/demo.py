"""Fills the databases with a network of people who never lived, the same for the same seed and sizes."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from random import Random
from typing import Any, TypeVar

import apsw
import click
import peewee

from chassis import errors, validation
from chassis.query import compiled, param
from chassis.settings import Settings
from chassis.store import Database, Store
from insta.users.v1 import users_pb2
from services.posts.models import AuthorCounter, Post
from services.social import follows
from services.social.models import Comment, Follow, Like, PostCounter, UserCounter
from services.users import accounts
from services.users.models import User
from services.users.passwords import Passwords
from suite import demo_network, demo_words
from suite.composition import SERVICES
from suite.databases import open_store
from suite.demo_network import Network, Newcomer, Sizes
from suite.demo_report import Report

_NUMBER = click.IntRange(0)
Row = TypeVar("Row")

# How long the other writers of a database are to wait for a chunk of rows.
_HOLD_SECONDS = 0.025
_CHUNK_ROWS = (200, 20_000)


@click.command()
@click.option("--users", type=_NUMBER, metavar="N", default=200, show_default=True, help="People to make.")
@click.option("--posts", type=_NUMBER, metavar="N", default=1_000, show_default=True, help="Posts by them.")
@click.option("--likes", type=_NUMBER, metavar="N", default=5_000, show_default=True, help="Likes of these posts.")
@click.option("--comments", type=_NUMBER, metavar="N", default=2_000, show_default=True, help="Comments on them.")
@click.option(
    "--follows", type=_NUMBER, metavar="N", default=3_000, show_default=True, help="Follows among these people."
)
@click.option("--seed", type=int, metavar="N", default=1, show_default=True, help="Another seed makes another network.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    default="2026-01-01",
    show_default=True,
    help="All of it happens within the year before this day (UTC).",
)
@click.option("--password", default="sunny afternoon", show_default=True, help="The password of all these people.")
@click.pass_obj
def demo(settings: Settings, /, seed: int, until: datetime.datetime, password: str, **sizes: int) -> None:
    """Add made-up people, their posts, likes, comments and follows.

    Goes straight into the databases in INSTA_DATA, whether the suite is running or not; calls go on meanwhile. The same
    seed and sizes make the same network. Once more adds as many people again, under other names.
    """
    wanted = Sizes(**sizes, follow_limit=follows.LIMIT)
    try:
        wanted.check()
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    network = Network(seed, wanted, end=int(until.replace(tzinfo=datetime.UTC).timestamp()) * 1_000_000)
    try:
        _check_password(password)
        password_hash = asyncio.run(Passwords(settings.bcrypt_cost).hash(password))
        with _stores(settings) as stores:
            _fill(network, stores, password_hash)
    except errors.Error as wrong:
        raise click.ClickException(wrong.text) from None
    except (apsw.Error, peewee.PeeweeException) as failure:
        text = f"{failure}. What was added to {settings.data} until then stays, and is counted."
        raise click.ClickException(text) from None
    _invite(network, password)


def _check_password(password: str) -> None:
    request = users_pb2.CreateUserRequest(
        username="demo", email="demo@example.com", first_name="Demo", password=password
    )
    validation.check(request)


@contextmanager
def _stores(settings: Settings) -> Iterator[dict[str, Store]]:
    """The databases of the services, by name."""
    with ExitStack() as opened:
        stores = {}
        for service in SERVICES.values():
            if service.migrations is not None:
                stores[service.name] = open_store(settings, service)
                opened.callback(stores[service.name].close)
        yield stores


def _fill(network: Network, stores: dict[str, Store], password_hash: bytes) -> None:
    users, posts, social = stores["users"], stores["posts"], stores["social"]
    sizes = network.sizes
    report = Report()
    with report.phase("people", sizes.users) as made:
        add_people = partial(_add_people, network, password_hash, network.rng("usernames"))
        _load(users, demo_network.people(network), add_people, made)
    with report.phase("posts", sizes.posts) as made:
        _load(posts, demo_network.posts(network), partial(_add_posts, network), made)
    with report.phase("likes", sizes.likes) as made:
        _load(social, demo_network.likes(network), _add_likes, made)
    with report.phase("comments", sizes.comments) as made:
        _load(social, demo_network.comments(network), _add_comments, made)
    with report.phase("follows", sizes.follows) as made:
        _load(social, demo_network.follows(network), _add_follows, made)
    report.show()


def _load(
    store: Store, rows: Iterator[Row], add: Callable[[list[Row], Database], None], made: Callable[[int], None]
) -> None:
    """Add rows in transactions of about `_HOLD_SECONDS`, each with the counters of its rows.

    How many rows one takes depends on the machine; what is stored does not.
    """
    least, most = _CHUNK_ROWS
    size = least
    while chunk := list(itertools.islice(rows, size)):
        begun = 0.0

        def timed(db: Database, chunk: list[Row] = chunk) -> None:
            nonlocal begun
            begun = time.perf_counter()
            add(chunk, db)

        store.write_now(timed)
        held = time.perf_counter() - begun
        size = min(max(int(size * min(_HOLD_SECONDS / held, 2)), least), most)
        made(len(chunk))


_set_joined = compiled(
    User.update(create_time=param("create_time"), update_time=param("create_time")).where(User.id == param("id"))
)
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


def _add_people(network: Network, password_hash: bytes, rng: Random, rows: list[Newcomer], db: Database) -> None:
    for newcomer in rows:
        account = _add_person(password_hash, rng, newcomer, db)
        _set_joined.run(db, id=account.id, create_time=newcomer.create_time)
        network.user_ids.append(account.id)
        network.usernames.append(account.username)


def _add_person(password_hash: bytes, rng: Random, newcomer: Newcomer, db: Database) -> accounts.Account:
    """Add somebody under the first username that is free."""
    attempt = 0
    while True:
        username = demo_words.username(rng, newcomer.name, attempt)
        attempt += 1
        with suppress(errors.AlreadyExists):
            return accounts.create(
                db,
                username=username,
                email=f"{username}@example.com",
                password_hash=password_hash,
                first_name=newcomer.name.first,
                last_name=newcomer.name.last,
                bio=newcomer.bio,
            )


def _add_posts(network: Network, rows: list[dict[str, Any]], db: Database) -> None:
    network.post_ids += [_inserted(_insert_post.one(db, **row)) for row in rows]
    counts = Counter(row["author_id"] for row in rows)
    _run_many(db, _adding(AuthorCounter), counts.items())


def _add_likes(rows: list[tuple[int, int, int]], db: Database) -> None:
    _run_many(db, _insert_likes, rows)
    counts = Counter(post_id for _, _, post_id in rows)
    _run_many(db, _adding(PostCounter), ((post_id, count, 0) for post_id, count in counts.items()))


def _add_comments(rows: list[tuple[int, int, int, str, int]], db: Database) -> None:
    _run_many(db, _insert_comments, rows)
    counts = Counter(row[2] for row in rows)
    _run_many(db, _adding(PostCounter), ((post_id, 0, count) for post_id, count in counts.items()))


def _add_follows(rows: list[tuple[int, int, int]], db: Database) -> None:
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


def _invite(network: Network, password: str) -> None:
    if not network.usernames:
        return
    username = network.usernames[network.popular[0]]
    click.echo(
        f"All of them have the password {shlex.quote(password)}. On a running suite (insta up) try:\n"
        f"  insta call AccountService.Login login={username} password={shlex.quote(password)}\n"
        "or, without a password, as an operator on this machine:\n"
        f"  insta call ProfileService.GetProfile username={username} --as {username}"
    )

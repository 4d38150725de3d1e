"""Fills the databases with a network of people who never lived, the same for the same seed and sizes."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, NamedTuple, TypeVar

import apsw
import click
import peewee
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

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
from suite import demo_words
from suite.composition import SERVICES, database_path

_NUMBER = click.IntRange(0)
Row = TypeVar("Row")

_YEAR = 365 * 86_400_000_000
# How long the other writers of a database are to wait for a chunk of rows.
_HOLD_SECONDS = 0.025
_CHUNK_ROWS = (200, 20_000)
# After so many likes other people are about: so few of them that their likes share pages of the index, which doubles
# the speed, and enough for a network.
_CROWD_LIKES = 10_000
_CROWD_PEOPLE = 500


@dataclass(frozen=True)
class Sizes:
    """How much to make."""

    users: int
    posts: int
    likes: int
    comments: int
    follows: int

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            click.UsageError: names the option.
        """
        limits = {
            "posts": (self.posts, None if self.users else 0, "without people"),
            "likes": (self.likes, self.users * self.posts, "at most one per person and post"),
            "comments": (self.comments, None if self.posts else 0, "without posts"),
            "follows": (
                self.follows,
                self.users * min(max(self.users - 1, 0), follows.LIMIT),
                f"at most one from each person to each other, and {follows.LIMIT:,} per person",
            ),
        }
        for name, (wanted, limit, why) in limits.items():
            if limit is not None and wanted > limit:
                raise click.UsageError(f"--{name} {wanted}: {limit:,} are possible here ({why}).")


@dataclass
class _Network:
    """What was made so far: the parts of a person or post are found under the same index in each list.

    Attributes:
        end: When everything has happened, in microseconds since 1970.
        active, popular: Indexes of people, each as often as they do something, or are followed.
    """

    seed: int
    sizes: Sizes
    end: int
    active: list[int]
    popular: list[int]
    user_ids: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    usernames: list[str] = field(default_factory=list)
    post_ids: list[int] = field(default_factory=list)
    posted: list[int] = field(default_factory=list)
    authors: list[int] = field(default_factory=list)

    def rng(self, subject: str) -> Random:
        """The random numbers of one subject: how many another one takes is of no importance to it."""
        return Random(f"{self.seed} {subject}")


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
    wanted = Sizes(**sizes)
    wanted.check()
    rng = Random(f"{seed} ranks")
    network = _Network(
        seed=seed,
        sizes=wanted,
        end=int(until.replace(tzinfo=datetime.UTC).timestamp()) * 1_000_000,
        active=_ranked(rng, wanted.users, 0.7),
        popular=_ranked(rng, wanted.users, 0.9),
    )
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
            if service.migrations is None:
                continue
            path = database_path(settings, service)
            try:
                stores[service.name] = Store(path, service.migrations)
            except (OSError, apsw.Error, peewee.PeeweeException) as failure:
                why = failure.strerror if isinstance(failure, OSError) else failure
                raise click.ClickException(f"cannot use {path}: {why}. Set INSTA_DATA to another folder.") from None
            opened.callback(stores[service.name].close)
        yield stores


def _fill(network: _Network, stores: dict[str, Store], password_hash: bytes) -> None:
    users, posts, social = stores["users"], stores["posts"], stores["social"]
    sizes = network.sizes
    report = _Report()
    with report.phase("people", sizes.users) as made:
        add_people = partial(_add_people, network, password_hash, network.rng("usernames"))
        _load(users, _people(network), add_people, made)
    with report.phase("posts", sizes.posts) as made:
        _load(posts, _posts(network), partial(_add_posts, network), made)
    with report.phase("likes", sizes.likes) as made:
        _load(social, _likes(network), _add_likes, made)
    with report.phase("comments", sizes.comments) as made:
        _load(social, _comments(network), _add_comments, made)
    with report.phase("follows", sizes.follows) as made:
        _load(social, _follows(network), _add_follows, made)
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


class _Newcomer(NamedTuple):
    name: demo_words.Name
    bio: str
    create_time: int


def _people(network: _Network) -> Iterator[_Newcomer]:
    rng = network.rng("people")
    # More of them came early.
    for age in sorted((rng.random() ** 0.5 for _ in range(network.sizes.users)), reverse=True):
        network.joined.append(network.end - int(age * _YEAR))
        yield _Newcomer(demo_words.name(rng), demo_words.bio(rng), network.joined[-1])


def _add_people(network: _Network, password_hash: bytes, rng: Random, rows: list[_Newcomer], db: Database) -> None:
    for newcomer in rows:
        account = _add_person(password_hash, rng, newcomer, db)
        _set_joined.run(db, id=account.id, create_time=newcomer.create_time)
        network.user_ids.append(account.id)
        network.usernames.append(account.username)


def _add_person(password_hash: bytes, rng: Random, newcomer: _Newcomer, db: Database) -> accounts.Account:
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


def _posts(network: _Network) -> Iterator[dict[str, Any]]:
    rng = network.rng("posts")
    authors = rng.choices(network.active, k=network.sizes.posts) if network.sizes.posts else []
    for create_time, author in sorted((_between(rng, network.joined[who], network.end), who) for who in authors):
        network.posted.append(create_time)
        network.authors.append(author)
        pictures = 1 if rng.random() < 0.7 else rng.randint(2, 5)
        seeds = [rng.randrange(1_000_000) for _ in range(pictures)]
        yield {
            "author_id": network.user_ids[author],
            "title": demo_words.title(rng),
            "description": demo_words.description(rng),
            "image_urls": json.dumps([f"https://picsum.photos/seed/{seed}/1080/1080" for seed in seeds]),
            "create_time": create_time,
        }


def _add_posts(network: _Network, rows: list[dict[str, Any]], db: Database) -> None:
    network.post_ids += [_inserted(_insert_post.one(db, **row)) for row in rows]
    counts = Counter(row["author_id"] for row in rows)
    _run_many(db, _adding(AuthorCounter), counts.items())


def _likes(network: _Network) -> Iterator[tuple[int, int, int]]:
    rng = network.rng("likes")
    counts = _shares(_appeal(network, rng), network.sizes.likes, network.sizes.users)
    crowd: list[int] = []
    crowd_likes = _CROWD_LIKES
    for post, count in enumerate(counts):
        if crowd_likes >= _CROWD_LIKES:
            crowd = list(dict.fromkeys(rng.choices(network.active, k=_CROWD_PEOPLE)))
            crowd_likes = 0
        crowd_likes += count
        likers = rng.sample(range(network.sizes.users), count) if 2 * count > len(crowd) else _some(rng, crowd, count)
        yield from sorted(
            (_soon(rng, network, post, who), network.user_ids[who], network.post_ids[post]) for who in likers
        )


def _add_likes(rows: list[tuple[int, int, int]], db: Database) -> None:
    _run_many(db, _insert_likes, rows)
    counts = Counter(post_id for _, _, post_id in rows)
    _run_many(db, _adding(PostCounter), ((post_id, count, 0) for post_id, count in counts.items()))


def _comments(network: _Network) -> Iterator[tuple[int, int, int, str, int]]:
    rng = network.rng("comments")
    counts = _shares(_appeal(network, rng), network.sizes.comments, network.sizes.comments)
    for post, count in enumerate(counts):
        moments = sorted((_soon(rng, network, post, who), who) for who in rng.choices(network.active, k=count))
        for moment, who in moments:
            yield moment, network.user_ids[who], network.post_ids[post], demo_words.comment(rng), moment


def _add_comments(rows: list[tuple[int, int, int, str, int]], db: Database) -> None:
    _run_many(db, _insert_comments, rows)
    counts = Counter(row[2] for row in rows)
    _run_many(db, _adding(PostCounter), ((post_id, 0, count) for post_id, count in counts.items()))


def _follows(network: _Network) -> Iterator[tuple[int, int, int]]:
    rng = network.rng("follows")
    people = network.sizes.users
    activity = Counter(network.active)
    counts = _shares([activity[who] for who in range(people)], network.sizes.follows, min(people - 1, follows.LIMIT))
    for follower, count in enumerate(counts):
        if 4 * count > people:
            followees: Iterable[int] = (other + (other >= follower) for other in rng.sample(range(people - 1), count))
        else:
            followees = _some(rng, network.popular, count, but=follower)
        yield from sorted(
            (
                _between(rng, max(network.joined[follower], network.joined[followee]), network.end),
                network.user_ids[follower],
                network.user_ids[followee],
            )
            for followee in followees
        )


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


def _ranked(rng: Random, count: int, exponent: float) -> list[int]:
    """The numbers below `count` in random order, each as often as its rank in a power law says, and at least once."""
    order = list(range(count))
    rng.shuffle(order)
    weights = [(rank + 3) ** -exponent for rank in range(count)]
    scale = 8 * count / sum(weights) if weights else 0
    return [number for number, weight in zip(order, weights, strict=True) for _ in range(max(1, round(weight * scale)))]


def _appeal(network: _Network, rng: Random) -> list[float]:
    """How much each post is looked at: more if its author is popular, and a matter of luck."""
    fame = Counter(network.popular)
    return [fame[author] ** 0.6 * rng.lognormvariate(0, 1) for author in network.authors]


def _shares(weights: Sequence[float], total: int, cap: int) -> list[int]:
    """`total`, split by weight into whole numbers of at most `cap`."""
    shares = [0] * len(weights)
    heaviest_first = sorted(range(len(weights)), key=weights.__getitem__, reverse=True)
    left = total
    while left:
        takers = [index for index in heaviest_first if shares[index] < cap]
        scale = left / sum(weights[index] for index in takers)
        for index in takers:
            share = min(max(int(weights[index] * scale), 1), cap - shares[index], left)
            shares[index] += share
            left -= share
    return shares


def _some(rng: Random, people: Sequence[int], count: int, but: int = -1) -> Iterable[int]:
    """`count` different numbers of a much longer list."""
    chosen = dict.fromkeys(rng.choices(people, k=count))
    chosen.pop(but, None)
    while len(chosen) < count:
        if (person := people[int(rng.random() * len(people))]) != but:
            chosen[person] = None
    return chosen


def _soon(rng: Random, network: _Network, post: int, who: int) -> int:
    """When somebody meets a post: mostly within days."""
    least = max(network.posted[post], network.joined[who])
    return least + int((network.end - least) * rng.random() ** 6)


def _between(rng: Random, least: int, end: int) -> int:
    return least + int((end - least) * rng.random())


class _Report:
    """Tells how far it is, and in the end what was made."""

    def __init__(self) -> None:
        self._console = Console()
        self._table = Table(box=box.SIMPLE)
        self._table.add_column("made")
        for heading in ("rows", "seconds", "rows/s"):
            self._table.add_column(heading, justify="right")

    @contextmanager
    def phase(self, name: str, rows: int) -> Iterator[Callable[[int], None]]:
        """The rows of one kind are made; call what it gives with each number of new ones."""
        begun = time.perf_counter()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=self._console, transient=True) as bar:
                yield partial(bar.advance, bar.add_task(name, total=rows))
        else:
            yield lambda count: None
        seconds = time.perf_counter() - begun
        if not self._console.is_terminal:
            click.echo(f"{name}: {rows:,} in {seconds:.1f} s")
        self._table.add_row(name, f"{rows:,}", f"{seconds:.1f}", f"{rows / seconds:,.0f}")

    def show(self) -> None:
        self._console.print(self._table)


def _invite(network: _Network, password: str) -> None:
    if not network.usernames:
        return
    username = network.usernames[network.popular[0]]
    click.echo(
        f"All of them have the password {shlex.quote(password)}. On a running suite (insta up) try:\n"
        f"  insta call AccountService.Login login={username} password={shlex.quote(password)}\n"
        "or, without a password, as an operator on this machine:\n"
        f"  insta call ProfileService.GetProfile username={username} --as {username}"
    )

"""Fills the databases with a network of people who never lived, the same for the same seed and sizes."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime
import shlex
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from functools import partial
from random import Random
from typing import Any

import click
import peewee

from chassis import errors, validation
from chassis.query import compiled, param
from chassis.settings import SettingError, Settings
from chassis.store import Database, Store
from insta.users.v1 import users_pb2
from services.posts.media import records
from services.posts.media.blob_store import BlobStore, open_blob_store
from services.social import follows
from services.users import accounts
from services.users.models import User
from services.users.passwords import Passwords
from suite import bulk, demo_gallery, demo_network, demo_words
from suite.demo_network import Network, Newcomer, Sizes
from suite.demo_report import Report

_NUMBER = click.IntRange(0)
# A seventh of a second of CPU each: most of the time that the demo takes.
_PICTURES = 40


@click.command()
@click.option("--users", type=_NUMBER, metavar="N", default=200, show_default=True, help="People to make.")
@click.option("--posts", type=_NUMBER, metavar="N", default=1_000, show_default=True, help="Posts by them.")
@click.option("--likes", type=_NUMBER, metavar="N", default=5_000, show_default=True, help="Likes of these posts.")
@click.option("--comments", type=_NUMBER, metavar="N", default=2_000, show_default=True, help="Comments on them.")
@click.option(
    "--follows", type=_NUMBER, metavar="N", default=3_000, show_default=True, help="Follows among these people."
)
@click.option(
    "--pictures",
    type=_NUMBER,
    metavar="N",
    show_default=f"{_PICTURES}, or as many as there is a place for",
    help="Pictures to draw: for the newest posts, up to 3 in each, and as avatars of the most popular people.",
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
def demo(
    settings: Settings, /, pictures: int | None, seed: int, until: datetime.datetime, password: str, **sizes: int
) -> None:
    """Add made-up people, their posts, pictures, likes, comments and follows.

    Goes straight into the databases and the store of images, whether the suite is running or not; calls go on
    meanwhile. The same seed and sizes make the same network. Once more adds as many people again, under other names.
    """
    wanted = Sizes(**sizes, follow_limit=follows.LIMIT, pictures=pictures or 0)
    if pictures is None:
        wanted = dataclasses.replace(wanted, pictures=min(_PICTURES, wanted.possible_pictures))
    try:
        wanted.check()
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    network = Network(seed, wanted, end=int(until.replace(tzinfo=datetime.UTC).timestamp()) * 1_000_000)
    try:
        _check_password(password)
        password_hash = asyncio.run(Passwords(settings.bcrypt_cost).hash(password))
        with bulk.open_stores(settings) as stores, ExitStack() as opened:
            blobs = opened.enter_context(closing(open_blob_store(settings))) if wanted.pictures else None
            _fill(network, stores, blobs, password_hash)
    except errors.Error as wrong:
        raise click.ClickException(wrong.text) from None
    except SettingError as wrong:
        raise click.ClickException(str(wrong)) from None
    except BrokenProcessPool:
        text = "a process that drew pictures was ended. Draw none: --pictures 0. What was added until then stays."
        raise click.ClickException(text) from None
    except peewee.PeeweeException as failure:
        text = f"{failure}. What was added to {settings.data} until then stays, and is counted."
        raise click.ClickException(text) from None
    _invite(network, password)


def _check_password(password: str) -> None:
    request = users_pb2.CreateUserRequest(
        username="demo", email="demo@example.com", first_name="Demo", password=password
    )
    validation.check(request)


def _fill(network: Network, stores: dict[str, Store], blobs: BlobStore | None, password_hash: bytes) -> None:
    users, posts, social = stores["users"], stores["posts"], stores["social"]
    sizes = network.sizes
    report = Report()
    with report.phase("people", sizes.users) as made:
        people = _People(network, password_hash)
        bulk.load(users, demo_network.people(network), people.add, made, keep=people.keep)
    post_rows = demo_network.posts(network)
    media_ids: list[int] = []
    if blobs is not None:
        with report.phase("pictures", sizes.pictures) as made:
            processes = demo_gallery.processes_for(sizes.pictures)
            media_ids = demo_gallery.fill(posts, blobs, demo_network.pictures(network), made, processes)
    with report.phase("posts", sizes.posts) as made:
        add_posts = partial(_add_posts, network, media_ids)
        bulk.load(posts, post_rows, add_posts, made, keep=network.post_ids.extend)
    with report.phase("likes", sizes.likes) as made:
        bulk.load(social, demo_network.likes(network), bulk.add_likes, made)
    with report.phase("comments", sizes.comments) as made:
        bulk.load(social, demo_network.comments(network), bulk.add_comments, made)
    with report.phase("follows", sizes.follows) as made:
        bulk.load(social, demo_network.follows(network), bulk.add_follows, made)
    report.show()


_set_joined = compiled(
    User.update(create_time=param("create_time"), update_time=param("create_time")).where(User.id == param("id"))
)


class _People:
    """Adds people. What a transaction that was undone had of them, the next one has again."""

    def __init__(self, network: Network, password_hash: bytes) -> None:
        self._network = network
        self._password_hash = password_hash
        self._rng = network.rng("usernames")

    def add(self, rows: list[Newcomer], db: Database) -> tuple[list[accounts.Account], Random]:
        """Add some, each under the first username that is free."""
        rng = copy.copy(self._rng)
        added = []
        for newcomer in rows:
            account = self._add_person(rng, newcomer, db)
            _set_joined.run(db, id=account.id, create_time=newcomer.create_time)
            added.append(account)
        return added, rng

    def keep(self, stored: tuple[list[accounts.Account], Random]) -> None:
        """They are stored."""
        added, self._rng = stored
        self._network.user_ids.extend(account.id for account in added)
        self._network.usernames.extend(account.username for account in added)

    def _add_person(self, rng: Random, newcomer: Newcomer, db: Database) -> accounts.Account:
        attempt = 0
        while True:
            username = demo_words.username(rng, newcomer.name, attempt)
            attempt += 1
            email = f"{username}@example.com"
            # A statement that is refused would undo all of the transaction in PostgreSQL.
            if accounts.is_free(db, username, email):
                return accounts.create(
                    db,
                    username=username,
                    email=email,
                    password_hash=self._password_hash,
                    first_name=newcomer.name.first,
                    last_name=newcomer.name.last,
                    bio=newcomer.bio,
                )


def _add_posts(network: Network, media_ids: list[int], rows: list[dict[str, Any]], db: Database) -> list[int]:
    """Add posts with the pictures that they show. Their ids."""
    post_ids = bulk.add_posts(rows, db)
    for number, (row, post_id) in enumerate(zip(rows, post_ids, strict=True), len(network.post_ids)):
        if numbers := network.illustrated.get(number):
            records.show_in_post(db, post_id, row["author_id"], media_ids[numbers.start : numbers.stop])
    return post_ids


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
    if network.illustrated:
        click.echo(f"  insta call PostService.GetPost post_id={network.post_ids[-1]} --as {username}")

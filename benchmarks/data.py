"""What the sides hold: the data that the seed command of the Django REST framework server makes, in a suite as well.

The same random numbers make the same rows: a call answers the same on all sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cached_property
from random import Random
from typing import Any, Protocol

import peewee

from chassis import clock, identity
from chassis.settings import Settings
from chassis.store import Database
from services.users import accounts, keys, sessions, tokens
from services.users.models import User
from suite import bulk
from suite.composition import SERVICES
from suite.databases import open_store

FOLLOWS, LIKES, COMMENTS = 50, 10, 3
# The seed has no list of comments that fills a page: the first posts get one, on all sides alike.
DISCUSSED, DISCUSSION = 100, 25
TITLE, DESCRIPTION, TEXT = "t{}", "d" * 120, "c" * 60


class Rows(Protocol):
    """What `fill` puts into databases; `Seed` says what each of them is."""

    users: int
    authors: list[int]
    follows: list[tuple[int, int]]
    likes: list[tuple[int, int]]
    comments: list[tuple[int, int]]
    discussion: list[tuple[int, int]]


class Seed:
    """The rows of one seed, ids as the databases assign them: from 1 on.

    Attributes:
        users, posts: How many there are.
        authors: Of the posts, in their order.
        follows: Follower and followee.
        likes: Post and user.
        comments: Post and author.
        discussion: Comments that go beyond what the seed command makes.
    """

    def __init__(self, users: int = 2_000, posts: int = 20_000, follows: int = FOLLOWS) -> None:
        self.users = users
        self.posts = posts
        everybody = range(1, users + 1)
        every_post = range(1, posts + 1)
        # As the command draws them, one after the other.
        rnd = Random(1)
        self.authors = [rnd.randint(1, users) for _ in every_post]
        self.follows = [(u, f) for u in everybody for f in rnd.sample(everybody, follows) if f != u]
        self.likes = [(p, u) for p in every_post for u in rnd.sample(everybody, LIKES)]
        self.comments = [(p, rnd.randint(1, users)) for p in every_post for _ in range(COMMENTS)]
        self.discussion = [
            (p, rnd.randint(1, users)) for p in self.discussed for _ in range(max(DISCUSSION - COMMENTS, 0))
        ]

    @property
    def discussed(self) -> range:
        """Posts with more comments than a page takes."""
        return range(1, min(DISCUSSED, self.posts) + 1)

    @cached_property
    def followees(self) -> dict[int, set[int]]:
        """Whom everybody follows."""
        followees: dict[int, set[int]] = {user: set() for user in range(1, self.users + 1)}
        for follower, followee in self.follows:
            followees[follower].add(followee)
        return followees


def fill(settings: Settings, seed: Rows) -> None:
    """Put rows into the databases of a suite, which are empty or not there."""
    now = clock.now()
    with bulk.open_stores(settings) as stores:
        users, posts, social = stores["users"], stores["posts"], stores["social"]
        _load(users, range(1, seed.users + 1), add_people)
        titles = ((author, TITLE.format(number)) for number, author in enumerate(seed.authors))
        _load(posts, (_post(author, title, now) for author, title in titles), bulk.add_posts)
        _load(social, ((now, follower, followee) for follower, followee in seed.follows), bulk.add_follows)
        _load(social, ((now, user, post) for post, user in seed.likes), bulk.add_likes)
        comments = [*seed.comments, *seed.discussion]
        _load(social, ((now, author, post, TEXT, now) for post, author in comments), bulk.add_comments)


def add_people(user_ids: Sequence[int], db: Database) -> None:
    """Add accounts named u1, u2 and so on, to which nobody can log in; of empty databases these are their ids."""
    now = clock.now()
    rows: Iterable[dict[Any, Any]] = (
        {
            User.username: f"u{user_id}",
            User.username_key: f"u{user_id}",
            User.email: f"u{user_id}@example.com",
            User.email_key: f"u{user_id}@example.com",
            User.password_hash: b"!",
            User.first_name: "",
            User.last_name: "",
            User.bio: "",
            User.search_key: f"u{user_id}",
            User.active: True,
            User.staff: False,
            User.superuser: False,
            User.create_time: now,
            User.update_time: now,
        }
        for user_id in user_ids
    )
    for chunk in peewee.chunked(rows, 100):
        User.insert_many(chunk).execute(db)


def access_tokens(settings: Settings, user_ids: Sequence[int]) -> list[str]:
    """An access token of each of these users, as `insta token` issues it, for 15 minutes. The suite may be running."""

    def issue(db: Database) -> list[str]:
        keys.ensure(db)
        key = keys.signer(db)
        lifetime = identity.LIFETIME_SECONDS * 1_000_000
        return [
            tokens.issue(key, accounts.get(db, user_id), sessions.for_operator(db, user_id, lifetime)).text
            for user_id in user_ids
        ]

    with closing(open_store(settings, SERVICES["users"])) as users:
        return users.write_now(issue)


def bearers(settings: Settings, user_ids: Sequence[int]) -> list[str]:
    """`access_tokens` as a `Load` takes them."""
    return [f"Bearer {token}" for token in access_tokens(settings, user_ids)]


def _load(store: Any, rows: Iterable[Any], add: Any) -> None:
    bulk.load(store, iter(rows), add, lambda count: None)


def _post(author_id: int, title: str, now: int) -> dict[str, Any]:
    return {
        "author_id": author_id,
        "title": title,
        "description": DESCRIPTION,
        "image_urls": "[]",
        "create_time": now,
        "update_time": now,
    }

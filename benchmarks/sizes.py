"""Networks of one shape in several sizes: what is asked for looks the same in each, only what lies around it grows.

They are kept under build/benchmarks/networks by what they are made of, and served as copies: what one run adds to them
is no part of the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from chassis.settings import from_environment
from chassis.store import Database
from suite import bulk

KEPT = Path("build/benchmarks/networks")

# Enough for a page of 20 and a next one: the posts of a prolific author, the comments on a discussed post ...
_MANY = 25
# Those who like at about the same time, and for how many likes: so their likes share pages of the index, which saves
# half of the time.
_CROWD_PEOPLE = 500
_CROWD_POSTS = 400
# Who follows no more follows prolific authors only.
_FEW = 20
# Nobody else writes.
_HOLD_SECONDS = 1.0
# Grows with each change to what is stored.
_VERSION = 2
_SECOND = 1_000_000
_BEGIN = 1_767_225_600 * _SECOND
_TEXT = "A sentence of a usual length, as people write them below the pictures of others."

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Size:
    """How much there is of what.

    Attributes:
        name: What tables call it.
        authors: People with few posts: half of all posts are theirs. The others have `_MANY` each.
        star_followers: How many follow the star.
        hit_likes: How many like the hit.
        readers: Pairs: so many people follow so many others each.
    """

    name: str
    people: int
    authors: int
    posts: int
    likes: int
    star_followers: int
    hit_likes: int
    readers: Sequence[tuple[int, int]] = ((10, 10), (10, 100), (10, 1_000), (10, 5_000))


SMALL = Size("10k posts, 10k likes", 10_000, 5_000, 10_000, 10_000, 1_000, 1_000)
MIDDLE = Size("1M posts, 1M likes", 1_010_000, 50_000, 1_000_000, 1_000_000, 1_000_000, 100_000)
LARGE = replace(MIDDLE, name="1M posts, 10M likes", likes=10_000_000, hit_likes=1_000_000)


class Network:
    """Who and what there is: the ids, the same ones each time.

    Attributes:
        star: The person whom most follow.
        prolific: Authors of `_MANY` posts and with as many followers each.
        readers: By how many others they follow.
        hit: The post that most like.
        discussed, liked: Posts that have `_MANY` comments, or likes.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        prolific = size.posts // 2 // _MANY - 1
        readers = sum(count for count, _ in size.readers)
        people = iter(_rng("people").sample(range(1, size.people + 1), 1 + readers + prolific + size.authors))
        self.star = next(people)
        self.readers = {followees: _take(people, count) for count, followees in size.readers}
        self.prolific = _take(people, prolific)
        self.authors = list(people)
        liked = (size.likes - size.hit_likes) * 3 // 4 // _MANY
        discussed = size.posts // 20
        posts = iter(_rng("kinds of posts").sample(range(1, size.posts + 1), 1 + liked + discussed))
        self.hit = next(posts)
        # As they were written: what happens at one time lies side by side in the indexes, too.
        self.liked = sorted(_take(posts, liked))
        self.discussed = sorted(posts)

    def people(self) -> Iterator[tuple[object, ...]]:
        """Accounts by the columns of their table. Nobody can log in with a password."""
        for number in range(1, self.size.people + 1):
            username = f"person{number:07}"
            email = f"{username}@example.com"
            names = ("Person", f"{number:07}")
            search_key = "\n".join((username, email, *names)).lower()
            flags = (True, False, False)
            yield (username, username, email, email, b"", 0, *names, _TEXT, search_key, *flags, _BEGIN, _BEGIN)

    def posts(self) -> Iterator[dict[str, object]]:
        """Posts by the names of their columns, those of all authors mixed."""
        by_prolific = [self.star, *self.prolific] * _MANY
        others = self.size.posts - len(by_prolific)
        author_ids = by_prolific + [self.authors[number % len(self.authors)] for number in range(others)]
        _rng("posts").shuffle(author_ids)
        for number, author_id in enumerate(author_ids):
            yield {
                "author_id": author_id,
                "title": f"The post number {number:07}",
                "description": _TEXT,
                "image_urls": json.dumps([f"https://pictures.example.com/{number:07}/1080/1080"]),
                "create_time": _BEGIN + number * _SECOND,
            }

    def likes(self) -> Iterator[tuple[int, int, int]]:
        """Likes as (create_time, user_id, post_id)."""
        for number, (user_id, post_id) in enumerate(self._likes()):
            yield _BEGIN + number, user_id, post_id

    def _likes(self) -> Iterator[tuple[int, int]]:
        rng = _rng("likes")
        everybody = range(1, self.size.people + 1)
        for user_id in rng.sample(everybody, self.size.hit_likes):
            yield user_id, self.hit
        for post_ids, crowd in self._crowds(rng, self.liked):
            yield from ((user_id, post_id) for post_id in post_ids for user_id in rng.sample(crowd, _MANY))
        others = list(set(range(1, self.size.posts + 1)) - {self.hit, *self.liked})
        rng.shuffle(others)
        left = self.size.likes - self.size.hit_likes - len(self.liked) * _MANY
        for number in range(left):
            # Who likes the same post when its turn comes again is somebody else.
            yield 1 + number // 20, others[number % len(others)]

    def comments(self) -> Iterator[tuple[int, int, int, str, int]]:
        """Comments as (create_time, author_id, post_id, text, update_time), those on some hundred posts mixed."""
        rng = _rng("comments")
        moment = _BEGIN
        for post_ids, crowd in self._crowds(rng, self.discussed):
            for post_id in rng.sample(post_ids * _MANY, len(post_ids) * _MANY):
                moment += 1
                yield moment, rng.choice(crowd), post_id, _TEXT, moment

    def _crowds(self, rng: random.Random, post_ids: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        """Some posts in turn, and the people who are about then."""
        everybody = range(1, self.size.people + 1)
        for start in range(0, len(post_ids), _CROWD_POSTS):
            yield post_ids[start : start + _CROWD_POSTS], rng.sample(everybody, min(_CROWD_PEOPLE, len(everybody)))

    def follows(self) -> Iterator[tuple[int, int, int]]:
        """Follows as (create_time, follower_id, followee_id)."""
        for number, (follower_id, followee_id) in enumerate(self._follows()):
            yield _BEGIN + number, follower_id, followee_id

    def _follows(self) -> Iterator[tuple[int, int]]:
        rng = _rng("follows")
        everybody = range(1, self.size.people + 1)
        # Who reads a feed follows as many people as is said, and no more.
        readers = {reader for some in self.readers.values() for reader in some}
        fans = rng.sample(everybody, self.size.star_followers + len(readers) + 1)
        others = (who for who in fans if who != self.star and who not in readers)
        yield from ((who, self.star) for who in islice(others, self.size.star_followers))
        for followee_id in self.prolific:
            followers = rng.sample(everybody, _MANY)
            yield from ((who, followee_id) for who in followers if who != followee_id and who not in readers)
        for count, some in self.readers.items():
            # A page has to be full, also where most authors have one post.
            authors = self.prolific if count <= _FEW else [*self.prolific, *self.authors]
            for reader in some:
                yield from ((reader, author_id) for author_id in rng.sample(authors, count))


def serve(size: Size, folder: Path, report: Report = lambda what, seconds: None) -> Network:
    """Put a network of a size into a folder that is not there yet, as `INSTA_DATA` takes it.

    Args:
        report: Told what was done, and how many seconds it took.
    """
    network = Network(size)
    parameters = json.dumps([_VERSION, asdict(size)])
    kept = KEPT / hashlib.sha256(parameters.encode()).hexdigest()[:16]
    if not kept.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=KEPT) as unfinished:
            fill(network, Path(unfinished) / "data", report)
            # Somebody else may have been faster.
            with suppress(OSError):
                (Path(unfinished) / "data").rename(kept)
    began = time.perf_counter()
    folder.mkdir(mode=0o700, parents=True)
    for database in kept.glob("*.db"):
        shutil.copy(database, folder)
    report(f"{size.name}: copied", time.perf_counter() - began)
    return network


def fill(
    network: Network,
    folder: Path,
    report: Report = lambda what, seconds: None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Make the databases of a network, in a folder where there are none, or where an environment says."""
    settings = from_environment({**environment, "INSTA_DATA": str(folder)})
    rows: Mapping[str, tuple[str, Iterable[object], Callable[..., object]]] = {
        "people": ("users", network.people(), bulk.add_users),
        "posts": ("posts", network.posts(), bulk.add_posts),
        "likes": ("social", network.likes(), bulk.add_likes),
        "comments": ("social", network.comments(), bulk.add_comments),
        "follows": ("social", network.follows(), bulk.add_follows),
    }
    with bulk.open_stores(settings) as stores:
        for store in stores.values():
            if not settings.database_addresses:
                asyncio.run(store.read(_hurry))
        for what, (service, made, add) in rows.items():
            began = time.perf_counter()
            counts: list[int] = []
            bulk.load(stores[service], iter(made), add, counts.append, hold_seconds=_HOLD_SECONDS)
            report(f"{network.size.name}: {sum(counts):,} {what} loaded", time.perf_counter() - began)


def _hurry(db: Database) -> None:
    """What a loss of power leaves is begun anew."""
    for pragma in ("synchronous = off", "cache_size = -500000", "wal_autocheckpoint = 50000"):
        db.execute_sql(f"PRAGMA {pragma}")


def _rng(subject: str) -> random.Random:
    """The random numbers of one subject: how many another one takes is of no importance to it."""
    return random.Random(f"{_VERSION} {subject}")


def _take(ids: Iterator[int], count: int) -> list[int]:
    return [next(ids) for _ in range(count)]

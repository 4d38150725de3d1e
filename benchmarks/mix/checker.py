"""Whether what a side answered under load is right: who wrote it, in which order, and that nothing is missing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from benchmarks.mix.plan import PAGE_SIZE
from benchmarks.mix.world import COMMENTS, LIKES, World

_BEFORE = float("-inf")


class Seen(NamedTuple):
    """A post on a page, as the caller saw it."""

    post_id: int
    author_id: int
    like_count: int
    comment_count: int


class Created(NamedTuple):
    """A post whose author was told its id.

    Attributes:
        acknowledged: At which second of the load.
    """

    post_id: int
    author_id: int
    acknowledged: float


class Checker:
    """Knows all posts of a side, and who follows whom."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._author = dict(enumerate(world.authors, start=1))
        # The ids of each, in the order in which they grow.
        self._written: dict[int, list[int]] = {user: [] for user in world.friends}
        # Of the posts of the last load only: the others were there before it.
        self._acknowledged: dict[int, float] = {}
        self._unsure: set[int] = set()
        for post_id, author_id in self._author.items():
            self._written[author_id].append(post_id)

    def learn(self, created: Iterable[Created], unsure: Iterable[int] = ()) -> list[str]:
        """Take note of all new posts of a load, before its pages are looked at. What is wrong with them.

        Args:
            unsure: Authors who got no answer: they may have another post that nobody knows the id of.
        """
        faults = []
        self._acknowledged = {}
        self._unsure.update(unsure)
        for post in sorted(created):
            if post.post_id in self._author:
                faults.append(f"the new post {post.post_id} has the id of another one")
                continue
            self._author[post.post_id] = post.author_id
            self._acknowledged[post.post_id] = post.acknowledged
            self._written[post.author_id].append(post.post_id)
        return faults

    def home(self, caller: int, page: Sequence[Seen], begun: float) -> str:
        """What is wrong with a first page of the feed that was asked for at a second of the load. Empty: nothing."""
        return self._fault(self._world.friends[caller], page, begun)

    def timeline(self, author_id: int, page: Sequence[Seen], begun: float) -> str:
        """What is wrong with the first page of somebody's posts. Empty: nothing."""
        return self._fault({author_id}, page, begun)

    def _fault(self, authors: Iterable[int], page: Sequence[Seen], begun: float) -> str:
        wrong = next(filter(None, (self._misfit(seen, authors) for seen in page)), "")
        return wrong or _disorder(page) or self._gap(authors, page, begun)

    def _misfit(self, seen: Seen, authors: Iterable[int]) -> str:
        """Whether a post does not belong on a page of these authors, or is not what was stored."""
        if seen.author_id not in authors:
            return f"post {seen.post_id} is by {seen.author_id}, whose posts do not belong here"
        author = self._author.get(seen.post_id)
        if author is None and seen.author_id not in self._unsure:
            return f"post {seen.post_id} was never written"
        if author not in (seen.author_id, None):
            return f"post {seen.post_id} is by {author}, not {seen.author_id}"
        counts = (LIKES, COMMENTS) if seen.post_id <= self._world.posts else (0, 0)
        if (seen.like_count, seen.comment_count) != counts:
            return f"post {seen.post_id} has {seen.like_count} likes and {seen.comment_count} comments, not {counts}"
        return ""

    def _gap(self, authors: Iterable[int], page: Sequence[Seen], begun: float) -> str:
        """Whether a post is missing that was there before the page was asked for."""
        there = {seen.post_id for seen in page}
        # Below the last one of a full page there may be more.
        last = page[-1].post_id if len(page) == PAGE_SIZE else 0
        for author_id in authors:
            written = self._written[author_id]
            for post_id in written[bisect_right(written, last) :]:
                if post_id not in there and self._acknowledged.get(post_id, _BEFORE) < begun:
                    return f"post {post_id} by {author_id} is missing"
        return ""


def _disorder(page: Sequence[Seen]) -> str:
    """Whether a page is too long, or not strictly newest first."""
    if len(page) > PAGE_SIZE:
        return f"{len(page)} posts on a page of {PAGE_SIZE}"
    for newer, older in pairwise(page):
        if newer.post_id <= older.post_id:
            return f"post {older.post_id} comes after {newer.post_id}"
    return ""

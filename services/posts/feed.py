"""The posts of many authors as one list, merged by index when it is read: nothing is copied, so it is always exact.

First the newest post of each author, one look into an index each. Of as many authors as the page has posts these are
enough: whatever the others have is older. Then the posts of those authors, none of them older than the page can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import peewee

from chassis.query import compiled, each, param
from chassis.store import Database
from services.posts.models import Post
from services.posts.posts import PostRow, columns


class _Newest(NamedTuple):
    """An author, and the id of their newest post below the page before; None if there is none."""

    author_id: int
    post_id: int | None


_authors = each("authors")
_author_id = peewee.SQL("authors.value")
_own = Post.alias("own")
_own_below = _own.select(_own.id).where(_own.author_id == _author_id, _own.id < param("below")).order_by(_own.id.desc())
_newest = compiled(
    peewee.Select([_authors], [_author_id, _own_below.limit(1).alias("newest")])
    .order_by(peewee.SQL("newest").desc(nulls="last"))
    .limit(param("limit")),
    row=_Newest,
)
_candidate = Post.alias("candidate")
_newest_of_each = _own_below.where(_own.id >= param("oldest")).limit(param("limit"))
_candidates = peewee.Select([_authors, _candidate], [_candidate.id]).where(_candidate.id.in_(_newest_of_each))
_page = compiled(
    Post.select(*columns).where(Post.id.in_(_candidates)).order_by(Post.id.desc()).limit(param("limit")), row=PostRow
)


def by_authors(db: Database, author_ids: Sequence[int], below: int, limit: int) -> list[PostRow]:
    """The posts of some authors with ids below one, the newest first, `limit` at most."""
    newest = [found for found in _newest.all(db, authors=author_ids, below=below, limit=limit) if found.post_id]
    if not newest:
        return []
    oldest = newest[-1].post_id if len(newest) == limit else 0
    best = [found.author_id for found in newest]
    return _page.all(db, authors=best, below=below, oldest=oldest, limit=limit)

"""The posts of many authors as one list, merged by index when it is read: nothing is copied, so it is always exact.

First the newest post of each author, one look into an index each. Of as many authors as the page has posts these are
enough: whatever the others have is older. Then the posts of those authors, none of them older than the page can be.

Of very many authors a page is often found sooner among the newest posts of anybody. How many of these it would take is
told by the first of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import peewee

from chassis.query import among, compiled, each, param
from chassis.store import Database
from services.posts.models import Post
from services.posts.posts import PostRow, columns

# A look at each of fewer authors costs little more than the attempt that tells.
_MANY_AUTHORS = 1_500
# To pass over a post costs a fraction of the look at an author: at most so many are passed over for each of them.
_POSTS_AN_AUTHOR = 2
# After so many for each post of the page it is estimated how many it will take.
_TRIED = 16


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
# The author a second time: so the posts are looked up in the index only, not in the table.
_candidates = peewee.Select([_authors, _candidate], [_candidate.id]).where(
    _candidate.author_id == _author_id, _candidate.id.in_(_newest_of_each)
)
_page = compiled(
    Post.select(*columns).where(Post.id.in_(_candidates)).order_by(Post.id.desc()).limit(param("limit")), row=PostRow
)
_of_anybody = compiled(
    Post.select(Post.id, Post.author_id).where(Post.id < param("below")).order_by(Post.id.desc()).limit(param("limit"))
)
_by_ids = compiled(Post.select(*columns).where(among(Post.id, "ids")).order_by(Post.id.desc()), row=PostRow)


def by_authors(db: Database, author_ids: Sequence[int], below: int, limit: int) -> list[PostRow]:
    """The posts of some authors with ids below one, the newest first, `limit` at most."""
    # Each once, and in their order: neighbours in the index are looked at one after the other.
    authors = dict.fromkeys(author_ids)
    # All queries see one moment: what is deleted between two of them would make a page look like the last.
    with db.atomic():
        if len(authors) >= _MANY_AUTHORS:
            post_ids = _among_newest(db, authors, below, limit)
            if post_ids is not None:
                return _by_ids.all(db, ids=post_ids)
        return _merged(db, authors, below, limit)


def _among_newest(db: Database, authors: Collection[int], below: int, limit: int) -> list[int] | None:
    """The ids of their posts, found by passing over those of everybody. None: it would take too many."""
    most = _POSTS_AN_AUTHOR * len(authors)
    size = min(_TRIED * limit, most // 4)
    found: list[int] = []
    passed = 0
    while True:
        posts = _of_anybody.all(db, below=below, limit=size)
        found += [post_id for post_id, author_id in posts if author_id in authors]
        if len(found) >= limit or len(posts) < size:
            return found[:limit]
        below, _ = posts[-1]
        passed += size
        if passed * limit > most * len(found):
            return None
        # What the rest takes if they come no less often from here on, and some more.
        size = min(passed * (limit - len(found)) * 5 // (4 * len(found)) + 1, most - passed)


def _merged(db: Database, authors: Collection[int], below: int, limit: int) -> list[PostRow]:
    newest = [found for found in _newest.all(db, authors=authors, below=below, limit=limit) if found.post_id]
    if not newest:
        return []
    oldest = newest[-1].post_id if len(newest) == limit else 0
    best = [found.author_id for found in newest]
    return _page.all(db, authors=best, below=below, oldest=oldest, limit=limit)

"""The posts of many authors as one list, merged by index when it is read: nothing is copied, so it is always exact.

First the newest post of each author, one look into an index each. Of as many authors as the page has posts these are
enough: whatever the others have is older. Then the posts of those authors, none of them older than the page can be; if
one wrote very many since, no more of each than the page has.

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
_MANY_AUTHORS = 800
# The attempt passes over so many posts for each one of the page.
_TRIED = 16
# To pass over a post costs a fraction of the look at an author: at most so many are passed over for each of them.
_POSTS_AN_AUTHOR = 3
# To sort so many ids costs less than to ask for those of each author by themselves.
_MOST_SORTED = 500


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
_since = compiled(
    peewee.Select([_authors, _candidate], [_candidate.id])
    .where(_candidate.author_id == _author_id, _candidate.id >= param("oldest"), _candidate.id < param("below"))
    .limit(param("limit"))
)
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
# The authors as a table in memory, built once: from here on Python would take three times as long a post.
_last = Post.select(Post.id, Post.author_id).where(Post.id < param("below")).order_by(Post.id.desc())
_last = _last.limit(param("most")).alias("last")
_among_last = compiled(
    peewee.Select([_last], [_last.c.id])
    .where(among(_last.c.author_id, "authors"))
    .order_by(_last.c.id.desc())
    .limit(param("limit"))
)
_by_ids = compiled(Post.select(*columns).where(among(Post.id, "ids")).order_by(Post.id.desc()), row=PostRow)


def by_authors(db: Database, author_ids: Sequence[int], below: int, limit: int) -> list[PostRow]:
    """The posts of some authors with ids below one, the newest first, `limit` at most."""
    # Each once, and in their order: neighbours in the index are looked at one after the other.
    authors = dict.fromkeys(author_ids)
    # All queries see one moment: what is deleted between two of them would make a page look like the last.
    with db.snapshot():
        if len(authors) >= _MANY_AUTHORS:
            post_ids = _among_newest(db, authors, below, limit)
            if post_ids is not None:
                return _by_ids.all(db, ids=post_ids)
        return _merged(db, authors, below, limit)


def _among_newest(db: Database, authors: Collection[int], below: int, limit: int) -> list[int] | None:
    """The ids of their posts, found by passing over those of everybody. None: it would take too many."""
    tried = _of_anybody.all(db, below=below, limit=_TRIED * limit)
    found = [post_id for post_id, author_id in tried if author_id in authors]
    if len(found) >= limit or len(tried) < _TRIED * limit:
        return found[:limit]
    most = _POSTS_AN_AUTHOR * len(authors)
    # Further down they may come more often, but hardly twice as often.
    if 2 * len(found) * most < limit * len(tried):
        return None
    found = [post_id for (post_id,) in _among_last.all(db, authors=authors, below=below, most=most, limit=limit)]
    return found if len(found) == limit else None


def _merged(db: Database, authors: Collection[int], below: int, limit: int) -> list[PostRow]:
    newest = [found for found in _newest.all(db, authors=authors, below=below, limit=limit) if found.post_id]
    if not newest:
        return []
    oldest = newest[-1].post_id if len(newest) == limit else 0
    best = [found.author_id for found in newest]
    since = _since.all(db, authors=best, below=below, oldest=oldest, limit=_MOST_SORTED)
    if len(since) < _MOST_SORTED:
        return _by_ids.all(db, ids=sorted((post_id for (post_id,) in since), reverse=True)[:limit])
    return _page.all(db, authors=best, below=below, oldest=oldest, limit=limit)

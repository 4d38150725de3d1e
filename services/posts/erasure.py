"""Erasing the posts and images of a deleted user, some at a time."""

from __future__ import annotations

import peewee

from chassis import replay, tombstones
from chassis.query import compiled, param
from chassis.store import Database
from chassis.tombstones import POST, USER, Gone
from services.posts import post_events
from services.posts.media import direct_uploads, discards, records
from services.posts.models import AuthorCounter, Post

_POSTS_AT_ONCE = 200
_MEDIA_AT_ONCE = 500

_some = Post.select(Post.id).where(Post.author_id == param("author_id")).limit(_POSTS_AT_ONCE)
_delete_some = compiled(Post.delete().where(Post.id.in_(_some)).returning(Post.id))
_lower_count = compiled(
    AuthorCounter.update(post_count=AuthorCounter.post_count - param("posts")).where(
        AuthorCounter.author_id == param("author_id")
    )
)
_delete_count = compiled(AuthorCounter.delete().where(AuthorCounter.author_id == param("author_id")))
_count = compiled(Post.select(peewee.fn.count(Post.id)).where(Post.author_id == param("author_id")))


def erase_some(db: Database, gone: Gone) -> None:
    """Erase some of what is left of somebody who is gone, or of a post."""
    if gone.kind == POST:
        records.delete_of_posts(db, [gone.id])
        tombstones.finish(db, gone)
    elif not (_erase_posts(db, gone.id) or _erase_media(db, gone.id) or replay.forget_some(db, gone.id)):
        _delete_count.run(db, author_id=gone.id)
        tombstones.finish(db, gone)


def _erase_posts(db: Database, author_id: int) -> int:
    deleted = [row[0] for row in _delete_some.all(db, author_id=author_id)]
    if deleted:
        records.delete_of_posts(db, deleted)
        _lower_count.run(db, author_id=author_id, posts=len(deleted))
    for post_id in deleted:
        post_events.post_deleted(db, post_id, author_id)
    return len(deleted)


def _erase_media(db: Database, owner_id: int) -> int:
    direct_uploads.forget_of(db, owner_id)
    discards.hasten(db, owner_id)
    return records.delete_some_of(db, owner_id, _MEDIA_AT_ONCE)


def left_of(db: Database, user_id: int) -> tuple[bool, dict[str, int]]:
    """Whether a user is gone and erased here, and how many rows there are of them."""
    gone = tombstones.get(db, USER, user_id)
    left = {
        "posts": _count.all(db, author_id=user_id)[0][0],
        "media": records.count_of(db, user_id),
        "blobs": discards.count_of(db, user_id),
    }
    return gone is not None and bool(gone.erased), left

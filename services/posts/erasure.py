"""Erasing the posts of a deleted user, some at a time."""

from __future__ import annotations

import peewee

from chassis import identity, replay, tombstones
from chassis.query import compiled, param
from chassis.store import Database
from chassis.tombstones import USER, Gone
from services.posts import post_events
from services.posts.models import AuthorCounter, Post

_POSTS_AT_ONCE = 200

_some = Post.select(Post.id).where(Post.author_id == param("author_id")).limit(_POSTS_AT_ONCE)
_delete_some = compiled(Post.delete().where(Post.id.in_(_some)).returning(Post.id))
_lower_count = compiled(
    AuthorCounter.update(post_count=AuthorCounter.post_count - param("posts")).where(
        AuthorCounter.author_id == param("author_id")
    )
)
_delete_count = compiled(AuthorCounter.delete().where(AuthorCounter.author_id == param("author_id")))
_count = compiled(Post.select(peewee.fn.count(Post.id)).where(Post.author_id == param("author_id")))


def refuse_gone_author(db: Database, author_id: int) -> None:
    """Let nobody who was deleted leave a post behind.

    Raises:
        Unauthenticated: they were.
    """
    if tombstones.get(db, USER, author_id):
        raise identity.account_deleted()


def erase_some(db: Database, gone: Gone) -> None:
    """Erase some posts of somebody who is gone."""
    deleted = [row[0] for row in _delete_some.all(db, author_id=gone.id)]
    for post_id in deleted:
        post_events.post_deleted(db, post_id, gone.id)
    if deleted:
        _lower_count.run(db, author_id=gone.id, posts=len(deleted))
    elif not replay.forget_some(db, gone.id):
        _delete_count.run(db, author_id=gone.id)
        tombstones.finish(db, gone)


def left_of(db: Database, user_id: int) -> tuple[bool, dict[str, int]]:
    """Whether a user is gone and erased here, and how many rows there are of them."""
    gone = tombstones.get(db, USER, user_id)
    return gone is not None and bool(gone.erased), {"posts": _count.all(db, author_id=user_id)[0][0]}

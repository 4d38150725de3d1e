"""Erasing what is here of a deleted user or post, some rows at a time, and the counters with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import peewee

from chassis import errors, identity, replay, tombstones
from chassis.errors import Reason
from chassis.query import compiled, param
from chassis.store import Database
from chassis.tombstones import POST, USER, Gone
from services.social import counters
from services.social.models import Comment, Follow, Like, PostCounter, UserCounter

# Each change of a counter is a write of its own: so many take some milliseconds.
_ROWS_AT_ONCE = 200


def _delete(field: peewee.Field, counted: peewee.Field) -> compiled[tuple[int]]:
    """Deletes some rows in which `field` is the argument `id`; answers of whom each was counted."""
    table: Any = field.model
    some = table.select(table.id).where(field == param("id")).limit(_ROWS_AT_ONCE)
    return compiled(table.delete().where(table.id.in_(some)).returning(counted))


_likes_by_user = _delete(Like.user_id, counted=Like.post_id)
_comments_by_user = _delete(Comment.author_id, counted=Comment.post_id)
_follows_by_user = _delete(Follow.follower_id, counted=Follow.followee_id)
_follows_of_user = _delete(Follow.followee_id, counted=Follow.follower_id)
_likes_of_post = _delete(Like.post_id, counted=Like.post_id)
_comments_on_post = _delete(Comment.post_id, counted=Comment.post_id)
_delete_post_counter = compiled(PostCounter.delete().where(PostCounter.post_id == param("id")))
_delete_user_counter = compiled(UserCounter.delete().where(UserCounter.user_id == param("id")))
_count_likes = compiled(Like.select(peewee.fn.count(Like.id)).where(Like.user_id == param("id")))
_count_comments = compiled(Comment.select(peewee.fn.count(Comment.id)).where(Comment.author_id == param("id")))
_count_follows = compiled(
    Follow.select(peewee.fn.count(Follow.id)).where(
        (Follow.follower_id == param("id")) | (Follow.followee_id == param("id"))
    )
)


def refuse_gone_post(db: Database, post_id: int) -> None:
    """Let nothing refer to a post that was deleted.

    Raises:
        NotFound: it was.
    """
    if tombstones.get(db, POST, post_id):
        raise errors.NotFound(Reason.REASON_POST_NOT_FOUND, f"there is no post {post_id}")


def refuse_gone_followee(db: Database, user_id: int) -> None:
    """Let nobody follow somebody who was deleted.

    Raises:
        NotFound: they were.
    """
    if tombstones.get(db, USER, user_id):
        raise errors.NotFound(Reason.REASON_USER_NOT_FOUND, f"there is no user {user_id}")


def refuse_gone_caller(db: Database, user_id: int) -> None:
    """Let nobody who was deleted leave anything behind.

    Raises:
        Unauthenticated: they were.
    """
    if tombstones.get(db, USER, user_id):
        raise identity.account_deleted()


def erase_some(db: Database, gone: Gone) -> None:
    """Erase some rows of something that is gone: of most things all, in one transaction."""
    erase = _erase_user if gone.kind == USER else _erase_post
    rows = 0
    while rows < _ROWS_AT_ONCE:
        erased = erase(db, gone.id)
        if not erased:
            tombstones.finish(db, gone)
            return
        rows += erased


def left_of(db: Database, user_id: int) -> tuple[bool, dict[str, int]]:
    """Whether a user is gone and erased here, and how many rows there are of them.

    Deleted posts that are still to be erased are counted whoever wrote them: it may have been the user.
    """
    gone: Gone | None = tombstones.get(db, USER, user_id)
    left = {
        "likes": _count_likes.all(db, id=user_id)[0][0],
        "comments": _count_comments.all(db, id=user_id)[0][0],
        "follows": _count_follows.all(db, id=user_id)[0][0],
        "deleted_posts": tombstones.count_pending(db, POST),
    }
    return gone is not None and bool(gone.erased), left


def _erase_user(db: Database, user_id: int) -> int:
    """Erase some rows of one kind. Returns how many; 0: nothing is left."""
    if liked := _likes_by_user.all(db, id=user_id):
        for post_id, count in _counted(liked).items():
            counters.change_post(db, post_id, likes=-count)
        return len(liked)
    if commented := _comments_by_user.all(db, id=user_id):
        for post_id, count in _counted(commented).items():
            counters.change_post(db, post_id, comments=-count)
        return len(commented)
    if followed := _follows_by_user.all(db, id=user_id):
        for other_id, count in _counted(followed).items():
            counters.change_user(db, other_id, followers=-count)
            counters.change_user(db, user_id, followees=-count)
        return len(followed)
    if followers := _follows_of_user.all(db, id=user_id):
        for other_id, count in _counted(followers).items():
            counters.change_user(db, other_id, followees=-count)
            counters.change_user(db, user_id, followers=-count)
        return len(followers)
    if forgotten := replay.forget_some(db, user_id):
        return forgotten
    _delete_user_counter.run(db, id=user_id)
    return 0


def _erase_post(db: Database, post_id: int) -> int:
    """Erase some rows of one kind. Returns how many; 0: nothing is left."""
    if liked := _likes_of_post.all(db, id=post_id):
        counters.change_post(db, post_id, likes=-len(liked))
        return len(liked)
    if commented := _comments_on_post.all(db, id=post_id):
        counters.change_post(db, post_id, comments=-len(commented))
        return len(commented)
    _delete_post_counter.run(db, id=post_id)
    return 0


def _counted(rows: list[tuple[int]]) -> Counter[int]:
    return Counter(row[0] for row in rows)

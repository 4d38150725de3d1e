"""Likes: at most one per person and post, counted in the transaction that adds or removes them."""

from __future__ import annotations

from typing import NamedTuple

from chassis import clock
from chassis.query import compiled, param
from chassis.store import Database
from services.social import counters, erasure, social_events
from services.social.models import Like


class Liker(NamedTuple):
    """Who likes a post; lists are ordered by `id`."""

    id: int
    user_id: int


_insert = compiled(
    Like.insert(user_id=param("user_id"), post_id=param("post_id"), create_time=param("now"))
    .on_conflict(action="nothing", conflict_target=[Like.user_id, Like.post_id])
    .returning(Like.id)
)
_delete = compiled(Like.delete().where(Like.user_id == param("user_id"), Like.post_id == param("post_id")))
_of_post = compiled(
    Like.select(Like.id, Like.user_id)
    .where(Like.post_id == param("post_id"), Like.id < param("below"))
    .order_by(Like.id.desc())
    .limit(param("limit")),
    row=Liker,
)
_exists = compiled(Like.select(Like.id).where(Like.user_id == param("user_id"), Like.post_id == param("post_id")))


def add(db: Database, post_id: int, user_id: int) -> int:
    """Like a post; a second like changes nothing. Returns the post's like count.

    Raises:
        NotFound: the post was deleted, also if that happened a moment ago.
        Unauthenticated: the person was.
    """
    erasure.refuse_gone_caller(db, user_id)
    erasure.refuse_gone_post(db, post_id)
    if _insert.one(db, post_id=post_id, user_id=user_id, now=clock.now()):
        social_events.post_liked(db, post_id, user_id)
        return counters.change_post(db, post_id, likes=1).like_count
    return counters.of_post(db, post_id).like_count


def remove(db: Database, post_id: int, user_id: int) -> int:
    """Take a like back, if there is one. Returns the post's like count."""
    if _delete.run(db, post_id=post_id, user_id=user_id):
        social_events.post_unliked(db, post_id, user_id)
        return counters.change_post(db, post_id, likes=-1).like_count
    return counters.of_post(db, post_id).like_count


def of_post(db: Database, post_id: int, below: int, limit: int) -> list[Liker]:
    """Who likes a post, the newest like first, from below the like with the id `below`."""
    return _of_post.all(db, post_id=post_id, below=below, limit=limit)


def exists(db: Database, user_id: int, post_id: int) -> bool:
    """Whether a person likes a post."""
    return _exists.one(db, user_id=user_id, post_id=post_id) is not None

"""What a viewer is told of posts and people: their counters, and how the viewer stands to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import peewee

from chassis.query import among, compiled, param
from chassis.store import Database
from services.social.models import Follow, Like, PostCounter, UserCounter


class PostStats(NamedTuple):
    """A post, as a viewer sees it."""

    post_id: int
    like_count: int
    comment_count: int
    viewer_liked: bool


class UserStats(NamedTuple):
    """A person, as a viewer sees them."""

    user_id: int
    follower_count: int
    followee_count: int
    viewer_follows: bool
    follows_viewer: bool


_viewers_like = Like.select(Like.id).where(Like.user_id == param("viewer_id"), Like.post_id == PostCounter.post_id)
_of_posts = compiled(
    PostCounter.select(
        PostCounter.post_id, PostCounter.like_count, PostCounter.comment_count, peewee.fn.EXISTS(_viewers_like)
    ).where(among(PostCounter.post_id, "post_ids")),
    row=PostStats,
)
_by_viewer = Follow.select(Follow.id).where(
    Follow.follower_id == param("viewer_id"), Follow.followee_id == UserCounter.user_id
)
_of_viewer = Follow.select(Follow.id).where(
    Follow.follower_id == UserCounter.user_id, Follow.followee_id == param("viewer_id")
)
_of_users = compiled(
    UserCounter.select(
        UserCounter.user_id,
        UserCounter.follower_count,
        UserCounter.followee_count,
        peewee.fn.EXISTS(_by_viewer),
        peewee.fn.EXISTS(_of_viewer),
    ).where(among(UserCounter.user_id, "user_ids")),
    row=UserStats,
)


def of_posts(db: Database, viewer_id: int, post_ids: Sequence[int]) -> list[PostStats]:
    """Many posts; those of which nothing was ever counted are left out."""
    return _of_posts.all(db, viewer_id=viewer_id, post_ids=post_ids)


def of_users(db: Database, viewer_id: int, user_ids: Sequence[int]) -> list[UserStats]:
    """Many people; those of whom nothing was ever counted are left out."""
    return _of_users.all(db, viewer_id=viewer_id, user_ids=user_ids)

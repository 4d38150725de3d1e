"""Counters of posts and people: changed in the transaction of the row that they count, and only if a row changed."""

from __future__ import annotations

from typing import NamedTuple

from chassis.query import compiled, param
from chassis.store import Database
from services.social.models import PostCounter, UserCounter


class PostCounts(NamedTuple):
    """What is counted of a post."""

    post_id: int
    like_count: int
    comment_count: int


class UserCounts(NamedTuple):
    """What is counted of a person."""

    user_id: int
    follower_count: int
    followee_count: int


_of_post = compiled(
    PostCounter.select(PostCounter.post_id, PostCounter.like_count, PostCounter.comment_count).where(
        PostCounter.post_id == param("post_id")
    ),
    row=PostCounts,
)
_of_user = compiled(
    UserCounter.select(UserCounter.user_id, UserCounter.follower_count, UserCounter.followee_count).where(
        UserCounter.user_id == param("user_id")
    ),
    row=UserCounts,
)
_change_post = compiled(
    PostCounter.insert(post_id=param("post_id"), like_count=param("likes"), comment_count=param("comments"))
    .on_conflict(
        conflict_target=[PostCounter.post_id],
        update={
            PostCounter.like_count: PostCounter.like_count + param("likes"),
            PostCounter.comment_count: PostCounter.comment_count + param("comments"),
        },
    )
    .returning(PostCounter.post_id, PostCounter.like_count, PostCounter.comment_count),
    row=PostCounts,
)
_change_user = compiled(
    UserCounter.insert(user_id=param("user_id"), follower_count=param("followers"), followee_count=param("followees"))
    .on_conflict(
        conflict_target=[UserCounter.user_id],
        update={
            UserCounter.follower_count: UserCounter.follower_count + param("followers"),
            UserCounter.followee_count: UserCounter.followee_count + param("followees"),
        },
    )
    .returning(UserCounter.user_id, UserCounter.follower_count, UserCounter.followee_count),
    row=UserCounts,
)


def of_post(db: Database, post_id: int) -> PostCounts:
    """The counters of one post."""
    found = _of_post.one(db, post_id=post_id)
    return found or PostCounts(post_id, 0, 0)


def of_user(db: Database, user_id: int) -> UserCounts:
    """The counters of one person."""
    found = _of_user.one(db, user_id=user_id)
    return found or UserCounts(user_id, 0, 0)


def change_post(db: Database, post_id: int, *, likes: int = 0, comments: int = 0) -> PostCounts:
    """Add to the counters of a post; what they are then."""
    counts = _change_post.one(db, post_id=post_id, likes=likes, comments=comments)
    assert counts is not None
    return counts


def change_user(db: Database, user_id: int, *, followers: int = 0, followees: int = 0) -> UserCounts:
    """Add to the counters of a person; what they are then."""
    counts = _change_user.one(db, user_id=user_id, followers=followers, followees=followees)
    assert counts is not None
    return counts

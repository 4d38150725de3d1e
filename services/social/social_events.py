"""What the event log tells of likes, comments and follows. Each function runs in the transaction of what it tells."""

from __future__ import annotations

from chassis import events
from chassis.store import Database
from insta.social.v1 import events_pb2


def post_liked(db: Database, post_id: int, user_id: int) -> None:
    """The post has one more like."""
    liked = events_pb2.PostLiked(post_id=post_id, user_id=user_id)
    events.append(db, events_pb2.Event(post_liked=liked))


def post_unliked(db: Database, post_id: int, user_id: int) -> None:
    """The like was taken back."""
    unliked = events_pb2.PostUnliked(post_id=post_id, user_id=user_id)
    events.append(db, events_pb2.Event(post_unliked=unliked))


def comment_created(db: Database, comment_id: int, post_id: int, author_id: int) -> None:
    """The comment is there."""
    created = events_pb2.CommentCreated(comment_id=comment_id, post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(comment_created=created))


def comment_updated(db: Database, comment_id: int, post_id: int, author_id: int) -> None:
    """The comment has another text."""
    updated = events_pb2.CommentUpdated(comment_id=comment_id, post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(comment_updated=updated))


def comment_deleted(db: Database, comment_id: int, post_id: int, author_id: int) -> None:
    """The comment is gone."""
    deleted = events_pb2.CommentDeleted(comment_id=comment_id, post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(comment_deleted=deleted))


def user_followed(db: Database, follower_id: int, followee_id: int) -> None:
    """Somebody follows somebody."""
    followed = events_pb2.UserFollowed(follower_id=follower_id, followee_id=followee_id)
    events.append(db, events_pb2.Event(user_followed=followed))


def user_unfollowed(db: Database, follower_id: int, followee_id: int) -> None:
    """Somebody follows somebody no longer."""
    unfollowed = events_pb2.UserUnfollowed(follower_id=follower_id, followee_id=followee_id)
    events.append(db, events_pb2.Event(user_unfollowed=unfollowed))

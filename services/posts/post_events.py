"""What the event log tells of posts and avatars. Each function runs in the transaction of what it tells."""

from __future__ import annotations

from chassis import events
from chassis.store import Database
from insta.posts.v1 import events_pb2


def post_created(db: Database, post_id: int, author_id: int) -> None:
    """The post is there."""
    created = events_pb2.PostCreated(post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(post_created=created))


def post_updated(db: Database, post_id: int, author_id: int) -> None:
    """The post is not as it was."""
    updated = events_pb2.PostUpdated(post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(post_updated=updated))


def post_deleted(db: Database, post_id: int, author_id: int) -> None:
    """The post is gone."""
    deleted = events_pb2.PostDeleted(post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(post_deleted=deleted))


def avatar_changed(db: Database, user_id: int) -> None:
    """Somebody has another avatar, or none."""
    changed = events_pb2.AvatarChanged(user_id=user_id)
    events.append(db, events_pb2.Event(avatar_changed=changed))

"""What the event log tells of posts. Each function runs in the transaction of what it tells."""

from __future__ import annotations

from chassis import events
from chassis.store import Database
from insta.posts.v1 import events_pb2


def post_deleted(db: Database, post_id: int, author_id: int) -> None:
    """The post is gone."""
    deleted = events_pb2.PostDeleted(post_id=post_id, author_id=author_id)
    events.append(db, events_pb2.Event(post_deleted=deleted))

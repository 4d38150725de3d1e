"""What the event log tells of accounts and sessions. Each function runs in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Sequence

from chassis import events
from chassis.store import Database
from insta.users.v1 import events_pb2


def sessions_ended(db: Database, user_id: int, session_ids: Sequence[str]) -> None:
    """Tokens of these sessions are not to be accepted any more."""
    ended = events_pb2.SessionsEnded(user_id=user_id, session_ids=session_ids)
    events.append(db, events_pb2.Event(sessions_ended=ended))


def user_created(db: Database, user_id: int) -> None:
    """The account is there."""
    events.append(db, events_pb2.Event(user_created=events_pb2.UserCreated(user_id=user_id)))


def user_updated(db: Database, user_id: int) -> None:
    """The account is not as it was."""
    events.append(db, events_pb2.Event(user_updated=events_pb2.UserUpdated(user_id=user_id)))


def user_deleted(db: Database, user_id: int) -> None:
    """The account is gone."""
    events.append(db, events_pb2.Event(user_deleted=events_pb2.UserDeleted(user_id=user_id)))

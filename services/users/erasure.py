"""Erasing what a deleted account leaves: the answers to its requests that were kept. The rest goes with it."""

from __future__ import annotations

from chassis import replay, tombstones
from chassis.store import Database
from chassis.tombstones import USER, Gone
from services.users import accounts, sessions


def erase_some(db: Database, gone: Gone) -> None:
    """Erase some rows of somebody who is gone."""
    if not replay.forget_some(db, gone.id):
        tombstones.finish(db, gone)


def left_of(db: Database, user_id: int) -> tuple[bool, dict[str, int]]:
    """Whether a user is gone and erased here, and how many rows there are of them."""
    gone = tombstones.get(db, USER, user_id)
    left = {"accounts": len(accounts.batch(db, [user_id])), "sessions": len(sessions.of_user(db, user_id))}
    return gone is not None and bool(gone.erased), left

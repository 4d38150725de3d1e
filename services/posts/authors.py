"""Whose posts and images these are."""

from __future__ import annotations

from chassis import identity, tombstones
from chassis.store import Database
from chassis.tombstones import USER


def refuse_gone(db: Database, user_id: int) -> None:
    """Let nobody who was deleted leave a post or an image behind.

    Raises:
        Unauthenticated: they were.
    """
    if tombstones.get(db, USER, user_id):
        raise identity.account_deleted()

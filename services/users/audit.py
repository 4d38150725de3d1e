"""What an audit compares of the users service's rows."""

from __future__ import annotations

from collections.abc import Sequence

from chassis import tombstones
from chassis.consistency import Reference, Rows
from chassis.replay import Reply
from chassis.store import Database
from chassis.tombstones import USER
from services.users import accounts, sessions
from services.users.models import Session


def _bury(db: Database, kind: str, ids: Sequence[int]) -> None:
    for user_id in ids:
        sessions.end_all(db, user_id)
        tombstones.reopen(db, kind, user_id)


ROWS = Rows(
    references=[Reference(Session.user_id, USER)],
    traces=[Reference(Reply.caller_id, USER)],
    missing={USER: accounts.missing},
    appends=True,
    bury=_bury,
)

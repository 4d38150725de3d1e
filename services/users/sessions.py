"""Sessions: each begins with a login, lives on refresh tokens that work once, and ends 30 days later at the latest.

A refresh token has two parts: one that names the session, the same in all its tokens, and 256 random bits that are new
each time. Who shows the first with other than the last of the second has a token that was used: it was copied, and the
session ends (RFC 9700, section 4.14.2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from typing import NamedTuple

from chassis import audit, clock, errors, identity
from chassis.call import Caller
from chassis.errors import Reason
from chassis.query import compiled, param
from chassis.store import Database
from services.users import user_events
from services.users.models import Session

LIFETIME_MICROS = 30 * 24 * 3600 * 1_000_000
MOST_PER_USER = 50
_FAMILY_SIZE = 16
_OWN_SIZE = 32
_CLIENT_NAME_LIMIT = 100
_OPERATOR = "insta token"


class SessionRow(NamedTuple):
    """A row of `Session`, without its hashes."""

    id: str
    user_id: int
    client_name: str
    address: str
    create_time: int
    use_time: int
    expire_time: int


class RefreshToken(NamedTuple):
    """The two parts of a refresh token."""

    family: bytes
    own: bytes

    @property
    def text(self) -> str:
        """The token as it travels: 64 characters."""
        return base64.urlsafe_b64encode(self.family + self.own).decode()


_columns = [getattr(Session, name) for name in SessionRow._fields]
_insert = compiled(
    Session.insert(
        id=param("id"),
        user_id=param("user_id"),
        family_hash=param("family_hash"),
        token_hash=param("token_hash"),
        client_name=param("client_name"),
        address=param("address"),
        create_time=param("now"),
        use_time=param("now"),
        expire_time=param("expire_time"),
    ).returning(*_columns),
    row=SessionRow,
)
_by_family = compiled(
    Session.select(*_columns).where(Session.family_hash == param("family_hash"), Session.expire_time > param("now")),
    row=SessionRow,
)
_rotate = compiled(
    Session.update(token_hash=param("new"), use_time=param("now"), address=param("address"))
    .where(Session.id == param("id"), Session.token_hash == param("old"))
    .returning(*_columns),
    row=SessionRow,
)
_of_user = compiled(
    Session.select(*_columns)
    .where(Session.user_id == param("user_id"), Session.expire_time > param("now"))
    .order_by(Session.use_time.desc(), Session.id),
    row=SessionRow,
)
_by_id = compiled(
    Session.select(*_columns).where(Session.id == param("id"), Session.expire_time > param("now")), row=SessionRow
)
_prolong = compiled(
    Session.update(use_time=param("now"), expire_time=param("expire_time")).where(Session.id == param("id"))
)
_delete = compiled(Session.delete().where(Session.id == param("id"), Session.user_id == param("user_id")))
_delete_all = compiled(Session.delete().where(Session.user_id == param("user_id")).returning(Session.id))
_delete_everybodys = compiled(Session.delete().returning(Session.user_id, Session.id))
_delete_expired = compiled(Session.delete().where(Session.expire_time <= param("now")))


def begin(db: Database, user_id: int, client_name: str, address: str) -> tuple[SessionRow, RefreshToken]:
    """Begin a session. Beyond `MOST_PER_USER` the one that was not used for longest ends."""
    now = clock.now()
    _delete_expired.run(db, now=now)
    for surplus in _of_user.all(db, user_id=user_id, now=now)[MOST_PER_USER - 1 :]:
        end(db, user_id, surplus.id)
    return _begin(db, user_id, client_name, address, now + LIFETIME_MICROS)


def for_operator(db: Database, user_id: int, lifetime: int) -> SessionRow:
    """The session in which an operator acts as a user, for `lifetime` microseconds more. There is one at most."""
    now = clock.now()
    for session in _of_user.all(db, user_id=user_id, now=now):
        # A client that calls itself the same has an address.
        if (session.client_name, session.address) == (_OPERATOR, ""):
            _prolong.run(db, id=session.id, now=now, expire_time=now + lifetime)
            return session._replace(use_time=now, expire_time=now + lifetime)
    session, _ = _begin(db, user_id, _OPERATOR, "", now + lifetime)
    return session


def _begin(
    db: Database, user_id: int, client_name: str, address: str, expire_time: int
) -> tuple[SessionRow, RefreshToken]:
    token = RefreshToken(secrets.token_bytes(_FAMILY_SIZE), secrets.token_bytes(_OWN_SIZE))
    session = _insert.one(
        db,
        id=secrets.token_urlsafe(12),
        user_id=user_id,
        family_hash=_hash(token.family),
        token_hash=_hash(token.own),
        client_name=client_name[:_CLIENT_NAME_LIMIT],
        address=address,
        now=clock.now(),
        expire_time=expire_time,
    )
    assert session is not None
    return session, token


def find(db: Database, token: RefreshToken) -> SessionRow:
    """The session that a refresh token belongs to, used or not.

    Raises:
        Unauthenticated: there is none, or no longer.
    """
    session = _by_family.one(db, family_hash=_hash(token.family), now=clock.now())
    if session is None:
        raise token_invalid()
    return session


def rotate(
    db: Database, session: SessionRow, token: RefreshToken, address: str
) -> tuple[SessionRow, RefreshToken] | None:
    """Put the next refresh token in the place of one. None: it is not the session's last."""
    following = token._replace(own=secrets.token_bytes(_OWN_SIZE))
    rotated = _rotate.one(
        db, id=session.id, old=_hash(token.own), new=_hash(following.own), now=clock.now(), address=address
    )
    return None if rotated is None else (rotated, following)


def of_user(db: Database, user_id: int) -> list[SessionRow]:
    """Somebody's sessions, the last used first."""
    return _of_user.all(db, user_id=user_id, now=clock.now())


def require(db: Database, caller: Caller) -> None:
    """Refuse a caller whose session has ended, though this process may not have heard of it yet.

    Raises:
        Unauthenticated: it has.
    """
    session = _by_id.one(db, id=caller.session_id, now=clock.now())
    if session is None:
        raise identity.session_ended()


def log_out(db: Database, caller: Caller) -> None:
    """End the caller's session.

    Raises:
        Unauthenticated: it has ended already.
    """
    require(db, caller)
    end(db, caller.user_id, caller.session_id)
    audit.record("logout", user_id=caller.user_id, session_id=caller.session_id)


def log_out_everywhere(db: Database, caller: Caller) -> None:
    """End all sessions of the caller.

    Raises:
        Unauthenticated: the one that calls has ended already.
    """
    require(db, caller)
    end_all(db, caller.user_id)
    audit.record("logout everywhere", user_id=caller.user_id)


def revoke(db: Database, caller: Caller, session_id: str) -> None:
    """End a session of the caller.

    Raises:
        NotFound: they have none with this id.
        Unauthenticated: the session that calls has ended already.
    """
    require(db, caller)
    if not end(db, caller.user_id, session_id):
        # What was sent is not told: it may be a refresh token, in the wrong field.
        raise errors.NotFound(Reason.REASON_SESSION_NOT_FOUND, "session_id: you have no such session; see ListSessions")
    audit.record("session revoked", user_id=caller.user_id, session_id=session_id)


def end(db: Database, user_id: int, session_id: str) -> bool:
    """End a session of a user. False: they have none with this id."""
    if not _delete.run(db, id=session_id, user_id=user_id):
        return False
    user_events.sessions_ended(db, user_id, [session_id])
    return True


def end_all(db: Database, user_id: int) -> list[str]:
    """End all sessions of a user. Returns their ids."""
    ended = [row[0] for row in _delete_all.all(db, user_id=user_id)]
    if ended:
        user_events.sessions_ended(db, user_id, ended)
    return ended


def end_everybodys(db: Database) -> int:
    """End all sessions of everybody. Returns how many."""
    ended = _delete_everybodys.all(db)
    by_user: dict[int, list[str]] = {}
    for user_id, session_id in ended:
        by_user.setdefault(user_id, []).append(session_id)
    for user_id, session_ids in by_user.items():
        user_events.sessions_ended(db, user_id, session_ids)
    return len(ended)


def refresh_token(text: str) -> RefreshToken:
    """The parts of a refresh token.

    Raises:
        Unauthenticated: the text cannot be one.
    """
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise token_invalid() from None
    token = RefreshToken(raw[:_FAMILY_SIZE], raw[_FAMILY_SIZE:])
    # The decoder takes other spellings, too: a token has one.
    if len(token.own) != _OWN_SIZE or token.text != text:
        raise token_invalid()
    return token


def token_invalid() -> errors.Unauthenticated:
    """The refresh token is not the last one of a session that goes on."""
    text = "refresh_token: was used before, or its session has ended; log in again"
    return errors.Unauthenticated(Reason.REASON_REFRESH_TOKEN_INVALID, text)


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()

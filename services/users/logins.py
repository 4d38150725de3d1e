"""Logging in, and staying so: the account and its session in one transaction."""

from __future__ import annotations

from typing import NamedTuple

from chassis import audit, errors
from chassis.errors import Reason
from chassis.store import Database
from services.users import accounts, sessions
from services.users.accounts import Account, Credentials
from services.users.sessions import RefreshToken, SessionRow


class Login(NamedTuple):
    """Somebody who is logged in, and the refresh token that keeps them so."""

    account: Account
    session: SessionRow
    refresh_token: RefreshToken


class Deactivated(NamedTuple):
    """The password was right, but the account is deactivated."""

    account: Account


class Reuse(NamedTuple):
    """A refresh token came a second time; its session was ended."""

    session: SessionRow


def begin(
    db: Database, checked: Credentials, stronger_hash: bytes | None, client_name: str, address: str
) -> Login | Deactivated:
    """Begin a session of an account whose password was checked.

    Args:
        stronger_hash: Of the same password, to store in place of one that costs less than new ones do.

    Raises:
        Unauthenticated: the account was deleted meanwhile, or has another password now.
    """
    current = accounts.credentials_by_id(db, checked.user_id)
    if current is None or current.password_version != checked.password_version:
        raise wrong_credentials()
    account = accounts.get(db, checked.user_id)
    if not account.active:
        audit.record("login to deactivated account", user_id=account.id)
        return Deactivated(account)
    if stronger_hash is not None:
        accounts.strengthen_password(db, checked, stronger_hash)
    session, token = sessions.begin(db, account.id, client_name, address)
    audit.record("login", user_id=account.id, session_id=session.id)
    return Login(account, session, token)


def refresh(db: Database, token: RefreshToken, address: str) -> Login | Reuse:
    """Exchange a refresh token for the next. One that was used before ends its session.

    Raises:
        Unauthenticated: it belongs to no session.
    """
    session = sessions.find(db, token)
    rotated = sessions.rotate(db, session, token, address)
    if rotated is None:
        sessions.end(db, session.user_id, session.id)
        audit.record(
            "refresh token reused", user_id=session.user_id, session_id=session.id, last_address=session.address
        )
        return Reuse(session)
    audit.record("session refreshed", user_id=session.user_id, session_id=session.id)
    return Login(accounts.get(db, session.user_id), *rotated)


def wrong_credentials() -> errors.Unauthenticated:
    """No account has this name and this password."""
    text = "login, password: no account has both; mind that passwords know capitals"
    return errors.Unauthenticated(Reason.REASON_WRONG_CREDENTIALS, text)

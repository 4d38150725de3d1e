"""Rows as the messages of the contract."""

from __future__ import annotations

from chassis import clock
from insta.users.v1 import sessions_pb2, users_pb2
from services.users.accounts import Account
from services.users.sessions import SessionRow


def public_user(account: Account) -> users_pb2.User:
    """An account as everybody may see it."""
    user = users_pb2.User(
        id=account.id,
        username=account.username,
        first_name=account.first_name,
        last_name=account.last_name,
        bio=account.bio,
    )
    clock.set_timestamp(user.create_time, account.create_time)
    clock.set_timestamp(user.update_time, account.update_time)
    return user


def private_user(account: Account) -> users_pb2.User:
    """An account as its owner and staff see it."""
    user = public_user(account)
    user.private_details.email = account.email
    user.private_details.active = bool(account.active)
    user.private_details.staff = bool(account.staff)
    user.private_details.superuser = bool(account.superuser)
    return user


def session_message(session: SessionRow, current: bool) -> sessions_pb2.Session:
    """A session as its owner sees it."""
    return sessions_pb2.Session(
        id=session.id,
        create_time=clock.timestamp(session.create_time),
        use_time=clock.timestamp(session.use_time),
        expire_time=clock.timestamp(session.expire_time),
        client_name=session.client_name,
        address=session.address,
        current=current,
    )

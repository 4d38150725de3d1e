"""Accounts: unique names and addresses, roles, and who may change whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import peewee

from chassis import audit, clock, errors, identity, tombstones
from chassis.call import Caller
from chassis.errors import Reason
from chassis.query import among, compiled, param
from chassis.store import Database, violated
from chassis.tombstones import USER
from services.users import sessions, user_events
from services.users.models import User


class Account(NamedTuple):
    """A row of `User`, without what only its search and its login need."""

    id: int
    username: str
    email: str
    first_name: str
    last_name: str
    bio: str
    active: bool
    staff: bool
    superuser: bool
    create_time: int
    update_time: int

    @property
    def privileged(self) -> bool:
        """Whether only superusers may change the account."""
        return bool(self.staff or self.superuser)


class Credentials(NamedTuple):
    """What a login is checked against."""

    user_id: int
    password_hash: bytes
    password_version: int


_columns = [getattr(User, name) for name in Account._fields]
_by_id = compiled(User.select(*_columns).where(User.id == param("id")), row=Account)
_by_ids = compiled(User.select(*_columns).where(among(User.id, "ids")), row=Account)
_by_username = compiled(User.select(*_columns).where(User.username_key == param("key")), row=Account)
_credentials = User.select(User.id, User.password_hash, User.password_version)
_credentials_by_id = compiled(_credentials.where(User.id == param("id")), row=Credentials)
_credentials_by_username = compiled(_credentials.where(User.username_key == param("key")), row=Credentials)
_credentials_by_email = compiled(_credentials.where(User.email_key == param("key")), row=Credentials)
_superusers = compiled(
    User.select(User.id).where(User.superuser == param("yes"), User.active == param("yes")).limit(param("limit"))
)
_insert = compiled(
    User.insert(
        username=param("username"),
        username_key=param("username_key"),
        email=param("email"),
        email_key=param("email_key"),
        password_hash=param("password_hash"),
        first_name=param("first_name"),
        last_name=param("last_name"),
        bio=param("bio"),
        search_key=param("search_key"),
        active=True,
        staff=param("superuser"),
        superuser=param("superuser"),
        create_time=param("now"),
        update_time=param("now"),
    ).returning(*_columns),
    row=Account,
)
_set_password = compiled(
    User.update(password_hash=param("new"), password_version=User.password_version + 1, update_time=param("now")).where(
        User.id == param("id"), User.password_version == param("version")
    )
)
_strengthen_password = compiled(
    User.update(password_hash=param("new")).where(User.id == param("id"), User.password_version == param("version"))
)
_delete = compiled(User.delete().where(User.id == param("id")))


def create(
    db: Database,
    *,
    username: str,
    email: str,
    password_hash: bytes,
    first_name: str,
    last_name: str,
    bio: str,
    superuser: bool = False,
) -> Account:
    """Add an account.

    Raises:
        AlreadyExists: the username or the address belongs to somebody.
    """
    try:
        account = _insert.one(
            db,
            username=username,
            username_key=_folded(username),
            email=email,
            email_key=_folded(email),
            password_hash=password_hash,
            first_name=first_name,
            last_name=last_name,
            bio=bio,
            search_key=_search_key(username, email, first_name, last_name),
            superuser=superuser,
            now=clock.now(),
        )
    except peewee.IntegrityError as conflict:
        raise _taken(conflict) from None
    assert account is not None
    user_events.user_created(db, account.id)
    audit.record("account created", user_id=account.id, superuser=bool(account.superuser))
    return account


def get(db: Database, user_id: int) -> Account:
    """Read one account.

    Raises:
        NotFound: there is none with this id.
    """
    account = _by_id.one(db, id=user_id)
    if account is None:
        raise _not_found(str(user_id))
    return account


def own(db: Database, caller: Caller) -> Account:
    """Read the caller's own account, as it is now: their token may be older than what happened to it.

    Raises:
        Unauthenticated: it was deleted.
    """
    account = _by_id.one(db, id=caller.user_id)
    if account is None:
        raise identity.account_deleted()
    return account


def seen(db: Database, caller: Caller, user_id: int) -> tuple[Account, bool]:
    """Read one account, and whether the caller may see its private details: it is their own, or they are staff now.

    Raises:
        NotFound: there is none with this id.
        Unauthenticated: it was the caller's own.
    """
    if user_id == caller.user_id:
        return own(db, caller), True
    account = get(db, user_id)
    viewer = _by_id.one(db, id=caller.user_id) if caller.staff else None
    return account, viewer is not None and bool(viewer.active and viewer.privileged)


def batch(db: Database, user_ids: Sequence[int]) -> list[Account]:
    """Read the accounts among `user_ids` that exist, each once."""
    return _by_ids.all(db, ids=user_ids)


def missing(db: Database, user_ids: Sequence[int]) -> list[int]:
    """Those of `user_ids` that do not exist."""
    return list(set(user_ids) - {account.id for account in batch(db, user_ids)})


def look_up(db: Database, username: str) -> Account:
    """Find the account with a username, whatever its case.

    Raises:
        NotFound: there is none.
    """
    account = _by_username.one(db, key=_folded(username))
    if account is None:
        raise _not_found(username)
    return account


def is_free(db: Database, username: str, email: str) -> bool:
    """Whether an account may have this username and this address."""
    taken = (credentials_for(db, username), _credentials_by_email.one(db, key=_folded(email)))
    return taken == (None, None)


def search(
    db: Database, caller: Caller, *, active: bool | None, staff: bool | None, text: str, below: int, limit: int
) -> list[Account]:
    """Accounts with ids below `below` that pass all filters, newest first. Reads the whole table if it must.

    Raises:
        PermissionDenied: the caller is not staff, or no longer.
    """
    if not _acting(db, caller).privileged:
        raise errors.PermissionDenied(Reason.REASON_STAFF_ONLY, "this method is for staff")
    query = User.select(*_columns).where(User.id < below)
    if active is not None:
        query = query.where(User.active == active)
    if staff is not None:
        privileged = (User.staff == True) | (User.superuser == True)  # noqa: E712 (they make expressions)
        query = query.where(privileged if staff else ~privileged)
    if text:
        # peewee's `contains` escapes the wildcards of LIKE.
        query = query.where(User.search_key.contains(_folded(text)))
    query = query.order_by(User.id.desc()).limit(limit)
    return [Account(*row) for row in db.execute(query).fetchall()]


def credentials_for(db: Database, login: str) -> Credentials | None:
    """What a login with a username or an email address is checked against. None: nobody has it."""
    query = _credentials_by_email if "@" in login else _credentials_by_username
    return query.one(db, key=_folded(login))


def credentials_by_id(db: Database, user_id: int) -> Credentials | None:
    """What the password of an account is checked against. None: there is no such account."""
    return _credentials_by_id.one(db, id=user_id)


def credentials_of(db: Database, caller: Caller) -> Credentials:
    """What the caller's own password is checked against.

    Raises:
        Unauthenticated: their account was deleted.
    """
    credentials = credentials_by_id(db, caller.user_id)
    if credentials is None:
        raise identity.account_deleted()
    return credentials


def set_password(db: Database, caller: Caller, checked: Credentials, password_hash: bytes) -> None:
    """Replace the caller's password, which was checked, and end all their sessions.

    Raises:
        PermissionDenied: it was changed meanwhile.
    """
    _acting(db, caller)
    version = checked.password_version
    if not _set_password.run(db, id=checked.user_id, version=version, new=password_hash, now=clock.now()):
        raise wrong_password("current_password")
    sessions.end_all(db, caller.user_id)
    audit.record("password changed", user_id=caller.user_id)


def strengthen_password(db: Database, checked: Credentials, password_hash: bytes) -> None:
    """Store another hash of the password that was checked, unless it was changed meanwhile."""
    _strengthen_password.run(db, id=checked.user_id, version=checked.password_version, new=password_hash)


def update(db: Database, caller: Caller, user_id: int, changes: Mapping[str, str]) -> Account:
    """Set fields of the caller's own account.

    Args:
        changes: New values of username, email, first_name, last_name, bio.

    Raises:
        PermissionDenied: it is another's account.
        AlreadyExists: the new username or address belongs to somebody.
    """
    if user_id != caller.user_id:
        raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, "user.id: only one's own account can be changed")
    account = _acting(db, caller)
    values = {name: value for name, value in changes.items() if getattr(account, name) != value}
    if not values:
        return account
    found_by = ("username", "email", "first_name", "last_name")
    values["search_key"] = _search_key(*(values.get(name, getattr(account, name)) for name in found_by))
    for name in ("username", "email"):
        if name in values:
            values[f"{name}_key"] = _folded(values[name])
    try:
        changed = _change(db, user_id, values)
    except peewee.IntegrityError as conflict:
        raise _taken(conflict) from None
    audit.record("account changed", user_id=user_id, fields=sorted(changes))
    return changed


def delete(db: Database, caller: Caller, user_id: int) -> None:
    """Delete the caller's own account, or as staff another's, and end its sessions.

    Raises:
        NotFound: there is no such account.
        PermissionDenied: the caller may not delete it.
        FailedPrecondition: it is the last superuser's.
    """
    actor = _acting(db, caller)
    account = get(db, user_id)
    if user_id != actor.id:
        _require_authority(actor, account)
    _keep_a_superuser(db, account)
    sessions.end_all(db, user_id)
    _delete.run(db, id=user_id)
    user_events.user_deleted(db, user_id)
    tombstones.add(db, USER, user_id)
    audit.record("account deleted", user_id=user_id)


def set_roles(db: Database, caller: Caller, user_id: int, *, staff: bool | None, superuser: bool | None) -> Account:
    """Set what an account may do; None leaves a role as it is. A change ends its sessions.

    Raises:
        NotFound: there is no such account.
        PermissionDenied: the caller is no superuser, or no longer.
        FailedPrecondition: nobody would be a superuser any more.
    """
    actor = _acting(db, caller)
    if not actor.superuser:
        raise _superusers_only()
    account = get(db, user_id)
    roles = {
        "staff": account.staff if staff is None else staff,
        "superuser": account.superuser if superuser is None else superuser,
    }
    if not roles["superuser"]:
        _keep_a_superuser(db, account)
    if (account.staff, account.superuser) == (roles["staff"], roles["superuser"]):
        return account
    sessions.end_all(db, user_id)
    audit.record("roles changed", user_id=user_id, **{name: bool(value) for name, value in roles.items()})
    return _change(db, user_id, {name: bool(value) for name, value in roles.items()})


def set_active(db: Database, caller: Caller, user_id: int, active: bool) -> Account:
    """Deactivate an account, which ends its sessions, or activate it again.

    Raises:
        NotFound: there is no such account.
        PermissionDenied: it belongs to staff and the caller is no superuser.
        FailedPrecondition: no active superuser would be left.
    """
    actor = _acting(db, caller)
    account = get(db, user_id)
    _require_authority(actor, account)
    if account.active == active:
        return account
    if not active:
        _keep_a_superuser(db, account)
        sessions.end_all(db, user_id)
    audit.record("account activated" if active else "account deactivated", user_id=user_id)
    return _change(db, user_id, {"active": active})


def end_sessions(db: Database, caller: Caller, user_id: int) -> None:
    """End all sessions of an account, as staff.

    Raises:
        NotFound: there is no such account.
        PermissionDenied: it belongs to staff and the caller is no superuser.
    """
    actor = _acting(db, caller)
    _require_authority(actor, get(db, user_id))
    sessions.end_all(db, user_id)
    audit.record("sessions revoked", user_id=user_id)


def _acting(db: Database, caller: Caller) -> Account:
    """The account of a caller who is about to change something. It must be active, and their session must go on.

    Their token was verified, but what ended their session may be newer than what this process heard of it.
    """
    account = own(db, caller)
    if not account.active:
        raise identity.account_inactive()
    sessions.require(db, caller)
    return account


def _require_authority(actor: Account, account: Account) -> None:
    if actor.superuser:
        return
    if not actor.staff:
        raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, "only staff can do this to somebody else's account")
    if account.privileged:
        raise _superusers_only()


def _keep_a_superuser(db: Database, leaving: Account) -> None:
    """Refuse to let the last active superuser go."""
    if leaving.superuser and leaving.active and len(_superusers.all(db, yes=True, limit=2)) == 1:
        text = "this is the last active superuser; make another one first"
        raise errors.FailedPrecondition(Reason.REASON_LAST_SUPERUSER, text)


def _change(db: Database, user_id: int, values: Mapping[str, object]) -> Account:
    user_events.user_updated(db, user_id)
    query = User.update(**values, update_time=clock.now()).where(User.id == user_id).returning(*_columns)
    return Account(*db.execute(query).fetchall()[0])


def _folded(name: str) -> str:
    return name.casefold()


def _search_key(username: str, email: str, first_name: str, last_name: str) -> str:
    return _folded("\n".join((username, email, first_name, last_name)))


def wrong_password(field: str) -> errors.PermissionDenied:
    """The password that confirms a change is not that of the account."""
    return errors.PermissionDenied(Reason.REASON_WRONG_PASSWORD, f"{field}: is not the password of the account")


def _superusers_only() -> errors.PermissionDenied:
    return errors.PermissionDenied(Reason.REASON_SUPERUSER_ONLY, "only superusers can change staff and superusers")


def _not_found(who: str) -> errors.NotFound:
    return errors.NotFound(Reason.REASON_USER_NOT_FOUND, f"there is no user {who}")


def _taken(conflict: peewee.IntegrityError) -> errors.AlreadyExists:
    if "username_key" in violated(conflict):
        text = "the username belongs to somebody already; choose another"
        return errors.AlreadyExists(Reason.REASON_USERNAME_TAKEN, text)
    text = "the email address belongs to an account already; log in with it, or use another"
    return errors.AlreadyExists(Reason.REASON_EMAIL_TAKEN, text)

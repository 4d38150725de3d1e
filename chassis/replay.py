"""Retries: a request that comes again under its request_id gets the first answer, and has no second effect.

The answer is stored in the transaction of the effect, for 24 hours, under the caller, the method and the request_id. Of
the request a keyed hash is kept, without its secret fields: another request under the same id is refused.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import peewee
from google.protobuf import descriptor, message

from chassis import clock, errors, identity, tombstones
from chassis.background import BackgroundTask
from chassis.call import caller
from chassis.models import IdField, Table
from chassis.premises import Premises
from chassis.query import compiled, param
from chassis.store import Database, Store
from chassis.tombstones import USER

Response = TypeVar("Response", bound=message.Message)

_KEPT_MICROS = 24 * 3600 * 1_000_000
_FORGOTTEN_AT_ONCE = 200
_OLD_AT_ONCE = 500
_SECONDS_BETWEEN_SWEEPS = 60.0


class Reply(Table):
    """The answer to a request that named itself, and the user whom it tells of."""

    id = IdField()
    caller_id = peewee.BigIntegerField()
    about_id = peewee.BigIntegerField(index=True)
    method = peewee.TextField()
    request_id = peewee.TextField()
    request_mac = peewee.BlobField()
    response = peewee.BlobField()
    create_time = peewee.BigIntegerField()

    class Meta:
        indexes = ((("caller_id", "method", "request_id"), True),)


class _Stored(NamedTuple):
    request_mac: bytes
    response: bytes
    create_time: int


class _Key(NamedTuple):
    caller_id: int
    method: str
    request_id: str
    request_mac: bytes


_of_key = (
    Reply.caller_id == param("caller_id"),
    Reply.method == param("method"),
    Reply.request_id == param("request_id"),
)
_get = compiled(Reply.select(Reply.request_mac, Reply.response, Reply.create_time).where(*_of_key), row=_Stored)
_put = compiled(
    Reply.insert(
        caller_id=param("caller_id"),
        about_id=param("about_id"),
        method=param("method"),
        request_id=param("request_id"),
        request_mac=param("request_mac"),
        response=param("response"),
        create_time=param("now"),
    )
)
_drop = compiled(Reply.delete().where(*_of_key))
# By their ids, which grow with time: nothing has to look through those that are not too old.
_oldest = Reply.select(Reply.id, Reply.create_time).order_by(Reply.id).limit(param("limit")).alias("oldest")
_too_old = peewee.Select([_oldest], [_oldest.c.id]).where(_oldest.c.create_time <= param("until"))
_forget_old = compiled(Reply.delete().where(Reply.id.in_(_too_old)))
_of_user = Reply.select(Reply.id).where((Reply.caller_id == param("user_id")) | (Reply.about_id == param("user_id")))
_forget = compiled(Reply.delete().where(Reply.id.in_(_of_user.limit(_FORGOTTEN_AT_ONCE))))


class Replies:
    """The answers that one service keeps.

    Args:
        key: A secret of at least 16 bytes, the same in every process of the service and across restarts.
        premises: Of a service that has to ask others before a change.
    """

    def __init__(self, store: Store, key: bytes, premises: Premises | None = None) -> None:
        self._store = store
        self._key = key
        self._premises = premises

    async def find(self, request: Any, response_class: type[Response]) -> Response | None:
        """The answer that the caller's request had before. None: it is a new one, or has no request_id.

        Raises:
            InvalidArgument: another request had this id.
        """
        if not request.request_id:
            return None
        stored = await self._store.read(_find, self._key_of(request))
        return None if stored is None or _is_too_old(stored) else response_class.FromString(stored.response)

    async def write(
        self,
        request: Any,
        response_class: type[Response],
        change: Callable[[Database], Response],
        about: Callable[[Response], int] | None = None,
        ask: Callable[[], Awaitable[object]] | None = None,
    ) -> Response:
        """Run a change that makes the answer, and keep the answer in its transaction.

        The same request may be under way a second time: then one of them makes the change, and both get its answer.

        Args:
            about: Answers which user a response tells of, with whom it is to be erased. None: the caller.
            ask: Asks other services whether the change may be made, and raises if not. What they say holds when it is.

        Raises:
            InvalidArgument: another request had this id.
            Unauthenticated: the caller was deleted, also if that happened a moment ago: nothing of theirs is kept.
        """
        key = self._key_of(request) if request.request_id else None

        def once(db: Database) -> Response:
            return change(db) if key is None else _once(db, key, response_class, change, about)

        if self._premises is None:
            return await self._store.write(once)
        return await self._premises.write(ask, once)

    def _key_of(self, request: Any) -> _Key:
        # No two methods share a request type.
        method = request.DESCRIPTOR.full_name
        return _Key(caller().user_id, method, request.request_id, self._mac(request))

    def _mac(self, request: message.Message) -> bytes:
        public = type(request)()
        public.CopyFrom(request)
        for field in _not_compared(request.DESCRIPTOR):
            public.ClearField(field)
        # Keyed BLAKE2 is a MAC (RFC 7693), and takes a tenth of the time that OpenSSL's HMAC takes.
        return hashlib.blake2b(public.SerializeToString(deterministic=True), key=self._key, digest_size=32).digest()


@functools.cache
def _not_compared(request: descriptor.Descriptor) -> Sequence[str]:
    """The fields of a request that may differ when it comes again."""
    secret = (field.name for field in request.fields if field.GetOptions().debug_redact)
    return ("request_id", *secret)


def forget_old(db: Database, limit: int) -> int:
    """Delete so many of the answers that are too old, the oldest first. Returns how many there were."""
    return _forget_old.run(db, until=clock.now() - _KEPT_MICROS, limit=limit)


def forgetting(store: Store) -> BackgroundTask:
    """Deletes answers that are too old.

    Beside the calls: of changes that each took the oldest along, a server would undo all but one.
    """

    async def step() -> bool:
        return await store.write(forget_old, _OLD_AT_ONCE) > 0

    return BackgroundTask("forgetting-replies", step, _SECONDS_BETWEEN_SWEEPS)


def forget_some(db: Database, user_id: int) -> int:
    """Delete some of the answers that were kept for a user who is gone, or tell of them. Returns how many."""
    return _forget.run(db, user_id=user_id)


def id_reused() -> errors.InvalidArgument:
    """The request_id belongs to another request."""
    description = "named another request in the last 24 hours; a new request needs a new one"
    return errors.invalid_field("request_id", description, errors.Reason.REASON_REQUEST_ID_REUSED)


def _find(db: Database, key: _Key) -> _Stored | None:
    """What is kept under the caller's id of a request.

    Raises:
        InvalidArgument: it is the answer to another one.
    """
    stored = _get.one(db, caller_id=key.caller_id, method=key.method, request_id=key.request_id)
    if stored is None or _is_too_old(stored):
        return stored
    if not hmac.compare_digest(bytes(stored.request_mac), key.request_mac):
        raise id_reused()
    return stored


def _is_too_old(stored: _Stored) -> bool:
    """Whether it is about to be deleted, and counts no more."""
    return stored.create_time <= clock.now() - _KEPT_MICROS


def _once(
    db: Database,
    key: _Key,
    response_class: type[Response],
    change: Callable[[Database], Response],
    about: Callable[[Response], int] | None,
) -> Response:
    stored = _find(db, key)
    if stored is not None and not _is_too_old(stored):
        return response_class.FromString(stored.response)
    if tombstones.get(db, USER, key.caller_id):
        raise identity.account_deleted()
    response = change(db)
    about_id = key.caller_id if about is None else about(response)
    if stored is not None:
        _drop.run(db, caller_id=key.caller_id, method=key.method, request_id=key.request_id)
    _put.run(db, **key._asdict(), about_id=about_id, response=response.SerializeToString(), now=clock.now())
    return response

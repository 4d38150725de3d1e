"""Wrong passwords make the next try wait: of an account, from an address, in a session. All processes share the counts.

An attempt counts as a failure from its beginning until it succeeds, so that many at once get no further than one by
one. Failures leak away with time. A session that goes on needs no password: nobody is locked out of one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chassis import clock
from chassis.query import compiled, param
from chassis.store import Database
from services.users.models import Throttle

_MICROS = 1_000_000


@dataclass(frozen=True)
class Rule:
    """How a kind of failures is counted.

    Attributes:
        name: What is counted.
        free: So many failures make nobody wait. Each further one doubles the delay, from one second on.
        leak_seconds: How soon one of them is forgotten, and the longest delay: a longer one would stop no more.
    """

    name: str
    free: int
    leak_seconds: int


# At the longest delay as many failures are forgotten as are added: about 100 guesses a day.
LOGIN = Rule("login", free=5, leak_seconds=15 * 60)
# Many people may share an address.
ADDRESS = Rule("address", free=100, leak_seconds=10)
# Who confirms something with their password is logged in already.
SESSION = Rule("session", free=5, leak_seconds=15 * 60)


class Subject(NamedTuple):
    """What failures are counted of: an account, an address or a session."""

    rule: Rule
    name: str

    @property
    def key(self) -> bytes:
        # People type passwords where names belong: what was typed is not stored.
        return hashlib.blake2b(f"{self.rule.name}\0{self.name}".encode(), digest_size=16).digest()


def login(typed: str) -> Subject:
    """The failures to log in with a name or an email address, whether anybody has it or not.

    An account has two of these: one count for both would tell which address belongs to which name.
    """
    return Subject(LOGIN, typed.casefold())


def address(text: str) -> Subject:
    """The failures from an IP address; of version 6, from its network, which one client has all of."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return Subject(ADDRESS, text)
    network = ipaddress.ip_network((ip, 64), strict=False) if ip.version == 6 else ip
    return Subject(ADDRESS, str(network))


def session(session_id: str) -> Subject:
    """The failures to confirm something by one's password."""
    return Subject(SESSION, session_id)


class _Bucket(NamedTuple):
    empty_time: int
    open_time: int


_get = compiled(
    Throttle.select(Throttle.empty_time, Throttle.open_time).where(Throttle.key == param("key")), row=_Bucket
)
_put = compiled(
    Throttle.insert(key=param("key"), empty_time=param("empty_time"), open_time=param("open_time")).on_conflict(
        conflict_target=[Throttle.key], preserve=[Throttle.empty_time, Throttle.open_time]
    )
)
_delete = compiled(Throttle.delete().where(Throttle.key == param("key")))
_delete_empty = compiled(Throttle.delete().where(Throttle.empty_time <= param("now")))


def begin(db: Database, subjects: Sequence[Subject]) -> float:
    """Count an attempt as a failure of each subject, until `succeed` or `undo`.

    Returns the seconds that one of them has to wait before; then nothing was counted.
    """
    now = clock.now()
    _delete_empty.run(db, now=now)
    buckets = {subject: _bucket(db, subject, now) for subject in subjects}
    wait = max(bucket.open_time for bucket in buckets.values()) - now
    if wait > 0:
        return wait / 1e6
    for subject, bucket in buckets.items():
        rule = subject.rule
        empty_time = bucket.empty_time + rule.leak_seconds * _MICROS
        # Begun ones count: a failure that has leaked a little is still one.
        failures = -((now - empty_time) // (rule.leak_seconds * _MICROS))
        delay = min(2 ** (failures - rule.free - 1), rule.leak_seconds) if failures > rule.free else 0
        _put.run(db, key=subject.key, empty_time=empty_time, open_time=now + delay * _MICROS if delay else 0)
    return 0.0


def succeed(db: Database, owner: Subject, others: Sequence[Subject]) -> None:
    """An attempt succeeded: forget all failures of the owner, and count it no more as one of the others."""
    _delete.run(db, key=owner.key)
    undo(db, others)


def undo(db: Database, subjects: Sequence[Subject]) -> None:
    """Count an attempt no more. The delay that it began ends; that of another failure meanwhile ends with it."""
    for subject in subjects:
        bucket = _get.one(db, key=subject.key)
        if bucket is not None:
            empty_time = bucket.empty_time - subject.rule.leak_seconds * _MICROS
            _put.run(db, key=subject.key, empty_time=empty_time, open_time=0)


def _bucket(db: Database, subject: Subject, now: int) -> _Bucket:
    bucket = _get.one(db, key=subject.key)
    fullest = (subject.rule.free + 20) * subject.rule.leak_seconds * _MICROS
    if bucket is None or bucket.empty_time > now + fullest:
        # Fuller than it can get: the clock was ahead when it was stored, and was set back.
        return _Bucket(now, 0)
    return bucket

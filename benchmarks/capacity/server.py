"""What a PostgreSQL server did, as itself and the operating system count it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg

from benchmarks import processes
from benchmarks.capacity.model import DATABASES
from tests.postgres_server import Server

# Answers for retries, events and sessions go again after a day, some days, a month.
_PASSING = ("reply", "logged_event", "session")
# "postgres: insta social 127.0.0.1(51234) idle"
_DATABASE_WORD = 2


@dataclass(frozen=True)
class Tally:
    """What a server did since its start.

    Attributes:
        seconds: Of the processor, by database; what is nobody's is shared evenly.
        changes: Transactions that changed something, or tried to.
        log_bytes: Of the write-ahead log.
        stored_bytes: Of what stays, with its indexes.
    """

    seconds: Mapping[str, float]
    changes: float
    log_bytes: float
    stored_bytes: float

    def __sub__(self, earlier: Tally) -> Tally:
        return Tally(
            {name: self.seconds[name] - earlier.seconds[name] for name in self.seconds},
            self.changes - earlier.changes,
            self.log_bytes - earlier.log_bytes,
            self.stored_bytes - earlier.stored_bytes,
        )

    def per(self, count: float) -> Tally:
        """The same of one of so many."""
        seconds = {name: each / count for name, each in self.seconds.items()}
        return Tally(seconds, self.changes / count, self.log_bytes / count, self.stored_bytes / count)


def tally(server: Server) -> Tally:
    """What it did until now."""
    seconds = dict.fromkeys(DATABASES, 0.0)
    nobodys = processes.ended_seconds(server.pid)
    for pid, used in processes.living_seconds(server.pid).items():
        words = processes.title(pid).split()
        name = words[_DATABASE_WORD] if len(words) > _DATABASE_WORD else ""
        if name in seconds:
            seconds[name] += used
        else:
            nobodys += used
    query = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, pg_current_wal_lsn() - '0/0'"
    with closing(psycopg.connect(server.url(), autocommit=True)) as connection:
        ((changes, log_bytes),) = connection.execute(query).fetchall()
    stored_bytes = sum(_stored_bytes(server.url(name)) for name in DATABASES)
    shared = {name: each + nobodys / len(seconds) for name, each in seconds.items()}
    return Tally(shared, float(changes), float(log_bytes), float(stored_bytes))


def _stored_bytes(url: str) -> int:
    query = "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relname <> ALL(%s)"
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        ((size,),) = connection.execute(query, (list(_PASSING),)).fetchall()
    return int(size)

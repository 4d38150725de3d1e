"""Leases on a PostgreSQL server."""

from __future__ import annotations

import threading
import time

from chassis import logs
from chassis.postgres_database import PostgresDatabase, advisory_lock, told

# How often leases are asked for, and how long the answer holds.
_LEASE_SECONDS, _LEASE_PROOF_SECONDS = 0.25, 3.0

log = logs.get(__name__)


class Leases:
    """Advisory locks of a session, on a connection that is kept for nothing else.

    They end with the connection, on the server at once: so a lease counts only while the server answers on it. For a
    moment two processes may believe that they have it: the offsets that they store tell them apart (`consumer.py`).
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._wanted: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        self._proven_at = float("-inf")
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def take(self, name: str) -> bool:
        """Whether this process has a lease. It is asked for every now and then, from the first time on, by a thread."""
        if name not in self._wanted:
            with self._changed:
                self._wanted |= {name}
                if self._thread is None:
                    self._thread = threading.Thread(target=self._keep, name="postgres-leases", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        return name in self._held and time.monotonic() - self._proven_at < _LEASE_PROOF_SECONDS

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        tried: frozenset[str] = frozenset()
        while not self._stopping:
            tried = self._wanted
            try:
                self._prove(tried)
            except Exception as failure:
                # Whatever it was: a thread that ended would keep what it holds.
                if self._held:
                    log.warning("leases lost with the connection to the database", error=told(failure))
                self._held = frozenset()
                self._database.drop()
            with self._changed:
                if tried == self._wanted and not self._stopping:
                    self._changed.wait(_LEASE_SECONDS)
        self._database.drop()

    def _prove(self, wanted: frozenset[str]) -> None:
        """Ask for what is wanted, and see that the server is there to keep what is held."""
        asked_at = time.monotonic()
        missing = wanted - self._held
        if not missing:
            self._database.execute_sql("SELECT 1")
        for name in missing:
            ((locked,),) = self._database.execute_sql(
                "SELECT pg_try_advisory_lock(%s)", (advisory_lock(name),)
            ).fetchall()
            if locked:
                self._held |= {name}
        self._proven_at = asked_at

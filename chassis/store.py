"""A service's database: reads, changes that are made whole or not at all, and leases.

It is a SQLite file (`sqlite.py`) or a database of a PostgreSQL server (`postgres.py`): a service cannot tell which. Its
changes are written as if each ran alone, and either kind makes it so. A change may run more than once before it is
committed: it has no effects but those in the database, and what it leaves to `after_commit`.
"""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import peewee

from chassis import errors

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

POSTGRESQL = "postgresql"


class Database(peewee.Database):
    """What queries run on. Each thread has a connection of its own.

    Attributes:
        dialect: POSTGRESQL, or of SQLite nothing.
    """

    dialect = ""

    if TYPE_CHECKING:
        # peewee's own.
        def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Any: ...
        def execute(self, query: Any, **context_options: Any) -> Any: ...
        def connection(self) -> Any: ...
        def cursor(self, named_cursor: Any = None) -> Any: ...

    def snapshot(self) -> AbstractContextManager[None]:
        """All reads within see the same moment. Not within a transaction."""
        raise NotImplementedError

    def next_event(self) -> int:
        """How many events this transaction appended before. Of databases whose transactions end in any order."""
        raise NotImplementedError


class Store(ABC):
    """The database of one service in this process."""

    @abstractmethod
    async def read(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a short read."""

    @abstractmethod
    async def read_long(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a read that may take long, so that no other call waits for it."""

    @abstractmethod
    async def write(
        self,
        change: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a change in a transaction; returns after its commit. An exception undoes the change and no other.

        A change does not begin any more when its call was cancelled, or its deadline has passed.

        Raises:
            DeadlineExceeded: it has.
            ResourceExhausted: the disk is full; nothing was stored.
            Unavailable: the database cannot be reached, could not commit, or is closed. Where the connection broke in
                the middle of the commit nobody knows whether it was made: a request_id makes it safe to try again.
        """

    @abstractmethod
    def read_now(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a read in which all queries see the same moment, and wait for it: from commands that serve no calls."""

    @abstractmethod
    def write_now(
        self,
        change: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a change and wait for it: at start, and from commands that serve no calls."""

    @abstractmethod
    def try_lease(self, name: str) -> bool:
        """Be the one process that does something to this database, until `close` or its death, or until it loses touch
        with the database: who goes on for long asks again and again.

        False: another process is, or may be, or the database has yet to be asked: this does not wait for it.
        """

    @abstractmethod
    def is_leased(self, name: str) -> bool:
        """Whether some process has a lease at the moment."""

    @abstractmethod
    def close(self) -> None:
        """Finish the changes that are waiting, and close all connections of the store's own and of this thread."""


_waiting_for_commit: contextvars.ContextVar[list[Callable[[], None]] | None] = contextvars.ContextVar(
    "waiting_for_commit", default=None
)


def after_commit(callback: Callable[[], None]) -> None:
    """Call something once the change under way is committed, whether anybody still waits for it or not.

    A change that is undone calls nothing. Where no change is under way the call is made at once.
    """
    waiting = _waiting_for_commit.get()
    if waiting is None:
        callback()
    else:
        waiting.append(callback)


def run_change(change: Callable[[], Result], after: list[Callable[[], None]]) -> Result:
    """Run a change, in a context of its own; what it leaves to `after_commit` is added to `after`."""
    _waiting_for_commit.set(after)
    return change()


def storage_full() -> errors.ResourceExhausted:
    """There is no room for what was to be stored."""
    text = "the disk of a service is full; nothing was stored"
    return errors.ResourceExhausted(errors.Reason.REASON_STORAGE_FULL, text, retry_after=5.0)


def violated(conflict: peewee.IntegrityError) -> str:
    """What names the constraint, or its columns, that a statement violated."""
    # What PostgreSQL says of it holds the values, which may have any names.
    diagnosis = getattr(conflict.args[0], "diag", None)
    return str(conflict) if diagnosis is None else str(diagnosis.constraint_name)

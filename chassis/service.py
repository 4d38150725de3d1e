"""What a service of the suite says of itself, and what it is given to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.types import ASGIApp

from chassis.background import BackgroundTask
from chassis.follower import Follower
from chassis.metrics import Metrics
from chassis.replay import Replies
from chassis.settings import Settings
from chassis.store import Store

if TYPE_CHECKING:
    from chassis.tracing import Tracer


class Built(NamedTuple):
    """What a service consists of in one process.

    Attributes:
        servicers: By the full name of their contract.
        background: What it does beside its calls, in one process at a time.
    """

    servicers: Mapping[str, object]
    background: Sequence[BackgroundTask] = ()


@dataclass(frozen=True)
class Service:
    """A part of the suite.

    Attributes:
        name: users, posts, social or gateway.
        port: Where it listens on 127.0.0.1 if nothing else is set; its metrics are at `metrics_port`.
        contracts: Full names of the proto services that it serves.
        calls: Names of the parts that it calls.
        follows: Names of those of them whose event logs each of its processes follows, beside that of users.
        build: Makes what it consists of in a process.
        migrations: The folder of its schema changes. None: it has no database.
        web: Makes what it serves to everybody over HTTP, at `media_listen`, wherever it runs. None: nothing.
    """

    name: str
    port: int
    metrics_port: int
    contracts: tuple[str, ...]
    calls: tuple[str, ...]
    build: Callable[[Parts], Built]
    follows: tuple[str, ...] = ()
    migrations: Path | None = None
    web: Callable[[Settings], ASGIApp | None] = lambda settings: None


@dataclass(frozen=True)
class Parts:
    """What the servicers of a service are made of.

    Attributes:
        events: The event logs that this process follows, by the names of their services: that of users, and those that
            the part names.
        channels: To each service that it calls, by name. Stubs take them, of methods that do not stream both ways.
        database: Its database, if it has one, and the answers to retries that it keeps there.
        draining: Set when the process is about to stop: whoever waits for something ends.
        closing: What is to be closed when the process stops.
        tracer: Records what it does. None: nothing is recorded.
    """

    settings: Settings
    metrics: Metrics
    events: Mapping[str, Follower]
    channels: Mapping[str, Any] = field(default_factory=dict)
    database: Store | None = None
    kept_replies: Replies | None = None
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    closing: ExitStack = field(default_factory=ExitStack)
    tracer: Tracer | None = None

    @property
    def store(self) -> Store:
        """The database of a service that has one."""
        if self.database is None:
            raise LookupError("this part has no database: it names no migrations")
        return self.database

    @property
    def replies(self) -> Replies:
        """The answers that a service with a database keeps."""
        if self.kept_replies is None:
            raise LookupError("this part has no database: it names no migrations")
        return self.kept_replies

"""The composition root: which services run in a process, on which stores and channels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, duration_pb2

from chassis import clock, identity, logs
from chassis.admission import Admission
from chassis.background import BackgroundTask
from chassis.endpoint import Endpoint
from chassis.follower import Follower
from chassis.identity import Verifier
from chassis.limits import MutationLimit
from chassis.local import LocalChannel
from chassis.metrics import Metrics
from chassis.models import secret
from chassis.premises import Premises
from chassis.remote import RemoteChannel
from chassis.replay import Replies
from chassis.revocation import Revocations
from chassis.server import Server, endpoints_of
from chassis.service import Parts, Service
from chassis.settings import SettingError, Settings
from chassis.store import Store
from chassis.tls import Certificate, Peer
from gateway import service as gateway
from insta.posts.v1 import events_pb2 as post_events_pb2
from insta.posts.v1 import events_pb2_grpc as post_events_pb2_grpc
from insta.users.v1 import auth_pb2, auth_pb2_grpc, events_pb2, events_pb2_grpc
from services.posts import service as posts
from services.social import service as social
from services.users import service as users
from suite import callers
from suite.databases import open_store

if TYPE_CHECKING:
    from chassis.tracing import Tracing

GATEWAY = gateway.SERVICE
SERVICES = {service.name: service for service in (users.SERVICE, posts.SERVICE, social.SERVICE, GATEWAY)}
_KEYS_TIMEOUT_SECONDS = 3.0
# How long a question for events waits for one, and how much longer for its answer.
_EVENTS_WAIT_SECONDS = 5
_EVENTS_MARGIN_SECONDS = 3.0
# A token that lives longer than what is remembered of ended sessions would come back to life.
_CLOCKS_DIFFER_SECONDS = 60
_REVOKED_SECONDS = identity.LIFETIME_SECONDS + 12 * identity.LEEWAY_SECONDS
_FIRST_NEWS_SECONDS = 5.0
_EVENTS_WAIT = duration_pb2.Duration(seconds=_EVENTS_WAIT_SECONDS)
# Each service has messages of its own, and they are all alike.
_EVENT_STUBS = {"users": events_pb2_grpc.EventServiceStub, "posts": post_events_pb2_grpc.EventServiceStub}
_EVENT_REQUESTS = {"users": events_pb2.ReadEventsRequest, "posts": post_events_pb2.ReadEventsRequest}

log = logs.get(__name__)


class Assembly:
    """Some of the services, ready to serve in this process.

    Args:
        services: Those that run here. Calls to any other go over the network, to the addresses in the settings.
        served: The one of them whose methods can be called from outside.
        peer: What it proves itself with to the others. None: nothing is encrypted on the way to them.

    Raises:
        SettingError: traces are to be recorded and cannot be.
    """

    def __init__(
        self, settings: Settings, services: Iterable[Service], served: Service, peer: Peer | None = None
    ) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._tracing = tracing_of(settings)
        self._served = served
        self._peer = peer
        self._stores: list[Store] = []
        self._channels: dict[str, Any] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._draining = asyncio.Event()
        self._background: list[tuple[BackgroundTask, Store]] = []
        self._closing = ExitStack()
        self._running: list[asyncio.Task[None]] = []
        here = list(services)
        # Whoever verifies tokens asks the users service for its keys, and which sessions have ended.
        for name in {users.SERVICE.name, *(name for service in here for name in service.calls)}:
            self._channels[name] = self._channel(name, here)
        followed = {name for service in here for name in service.follows}
        self._events = {name: self._follower(name, _CLOCKS_DIFFER_SECONDS) for name in followed}
        # Sessions that ended before can have no token that is still valid.
        user_events = self._follower(users.SERVICE.name, _REVOKED_SECONDS)
        self._events[users.SERVICE.name] = user_events
        self._revocations = Revocations(user_events.age, _REVOKED_SECONDS)
        user_events.subscribe(lambda event: self._revocations.add(event.sessions_ended.session_ids))
        self._verifier = Verifier(self._fetch_keys, self._revocations)
        self._admission = Admission(settings.max_calls)
        limit = MutationLimit(settings.mutations_per_minute)
        allowed = callers.allowed(settings)
        for service in here:
            # A call within the process was admitted and counted when it came in.
            comes_in = service is served
            parts = self._parts(service)
            self._closing.push(parts.closing)
            built = service.build(parts)
            names = built.servicers.keys()
            if names != set(service.contracts):
                raise ValueError(f"the {service.name} service serves {set(names)}, not the contracts that it names")
            if service is not GATEWAY and not names <= allowed.keys():
                raise ValueError(f"nobody has said who may call {names - allowed.keys()}")
            self._background += [(task, parts.store) for task in built.background]
            self._endpoints |= endpoints_of(
                built.servicers,
                self._verifier,
                self.metrics,
                self._admission if comes_in else None,
                limit if comes_in else None,
                parts.kept_replies,
                callers=allowed,
                tracer=parts.tracer,
            )

    def server(self, certificate: Certificate | Peer | None, *, shares_port: bool) -> Server:
        """A server of what can be called from outside, which proves itself with a certificate."""
        served = {
            path: endpoint for path, endpoint in self._endpoints.items() if path.split("/")[1] in self._served.contracts
        }
        return Server(
            served,
            self._verifier,
            self.metrics,
            draining=self._draining,
            internal=self._served is not GATEWAY,
            trusted_proxies=self._settings.trusted_proxies,
            admission=self._admission,
            connection_age=self._settings.connection_age_seconds or math.inf,
            longest_wait=self._settings.max_wait_milliseconds / 1000,
            reflects=self._settings.reflection,
            shares_port=shares_port,
            certificate=certificate,
        )

    def begin(self) -> None:
        """Begin with what goes on beside the calls, until `close`."""
        self._running += [asyncio.create_task(follower.run()) for follower in self._events.values()]
        self._running += [asyncio.create_task(task.run(store)) for task, store in self._background]

    async def first_news(self) -> None:
        """Wait a while until it is known which sessions have ended."""
        if not await self._events[users.SERVICE.name].wait_until_heard(_FIRST_NEWS_SECONDS):
            log.warning("not heard yet which sessions have ended; until then no call may change anything")

    async def close(self, seconds: float = 0.0) -> None:
        """Finish what is waiting to be written, and close all channels. Traces are sent for so many seconds at most."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()
        self._closing.close()
        for store in self._stores:
            store.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shutdown, seconds)

    def _channel(self, name: str, here: list[Service]) -> Any:
        service = SERVICES[name]
        if service in here:
            return LocalChannel(self._endpoints)
        pool = descriptor_pool.Default()
        contracts = [pool.FindServiceByName(contract) for contract in service.contracts]
        most_waiting = self._settings.max_calls // 4
        return RemoteChannel(address_of(self._settings, name), contracts, self._peer, name, most_waiting)

    def _parts(self, service: Service) -> Parts:
        channels = {name: self._channels[name] for name in service.calls}
        tracer = None if self._tracing is None else self._tracing.tracer(service.name)
        if service.migrations is None:
            return Parts(self._settings, self.metrics, self._events, channels, draining=self._draining, tracer=tracer)
        writes, log_size = self.metrics.committed(service.name), self.metrics.log_size(service.name)
        database = open_store(self._settings, service, writes.observe, log_size.set)
        self._stores.append(database)
        premises = Premises(database, self._missing_users) if service.calls else None
        replies = Replies(database, database.write_now(secret, "replies"), premises)
        return Parts(
            self._settings,
            self.metrics,
            self._events,
            channels,
            database,
            replies,
            self._draining,
            tracer=tracer,
        )

    async def _fetch_keys(self) -> Mapping[str, bytes]:
        stub = auth_pb2_grpc.AuthServiceStub(self._channels["users"])
        published = await stub.GetKeySet(auth_pb2.GetKeySetRequest(), timeout=_KEYS_TIMEOUT_SECONDS)
        return {key.kid: key.x for key in published.keys}

    async def _missing_users(self, user_ids: Sequence[int]) -> Sequence[int]:
        stub = events_pb2_grpc.EventServiceStub(self._channels["users"])
        return (await stub.FindMissingUsers(events_pb2.FindMissingUsersRequest(user_ids=user_ids))).user_ids

    def _follower(self, name: str, seconds: int) -> Follower:
        """Follows the event log of a service, from so many seconds ago on."""
        stub: Any = _EVENT_STUBS[name](self._channels[name])
        request_class = _EVENT_REQUESTS[name]

        async def read(offset: int, limit: int) -> Any:
            start_time = clock.timestamp(clock.now() - seconds * 1_000_000)
            request = request_class(offset=offset, start_time=start_time, limit=limit, wait=_EVENTS_WAIT)
            # After a silence the question waits for nothing: its answer tells that the service is there (again).
            if follower.silence() > _EVENTS_WAIT_SECONDS + _EVENTS_MARGIN_SECONDS:
                request.ClearField("wait")
            return await stub.ReadEvents(request, timeout=_EVENTS_WAIT_SECONDS + _EVENTS_MARGIN_SECONDS)

        follower = Follower(name, read)
        return follower


def address_of(settings: Settings, name: str) -> str:
    """Where a service is when it runs apart."""
    address: str = getattr(settings, f"{name}_address")
    return address


def tracing_of(settings: Settings) -> Tracing | None:
    """What records traces. None: nothing is to.

    Raises:
        SettingError: they cannot be recorded; says what to change.
    """
    if not settings.trace_ratio:
        return None
    setting = f"INSTA_TRACE_RATIO={settings.trace_ratio:g}"
    # Imported where it is used: OpenTelemetry need not be there, and takes a while.
    try:
        from chassis.tracing import Tracing, WrongEnvironment
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("opentelemetry"):
            raise
        raise SettingError(f"{setting}: needs OpenTelemetry. Install it: pip install 'insta[tracing]'") from None
    try:
        return Tracing(settings.trace_ratio)
    except WrongEnvironment as wrong:
        raise SettingError(f"{setting}: {wrong}") from None

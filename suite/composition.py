"""The composition root: which services run in a process, on which stores and channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor_pool

from chassis.call import Caller
from chassis.endpoint import Admission, Endpoint
from chassis.identity import Verifier, account_inactive
from chassis.local import LocalChannel
from chassis.metrics import Metrics
from chassis.remote import RemoteChannel
from chassis.server import Server, endpoints_of
from chassis.service import Parts, Service
from chassis.settings import Settings
from chassis.store import Store
from chassis.tls import Certificate, Peer
from gateway import service as gateway
from insta.users.v1 import auth_pb2, auth_pb2_grpc, users_pb2, users_pb2_grpc
from services.posts import service as posts
from services.social import service as social
from services.users import service as users
from suite import callers
from suite.databases import open_store

GATEWAY = gateway.SERVICE
SERVICES = {service.name: service for service in (users.SERVICE, posts.SERVICE, social.SERVICE, GATEWAY)}
_KEYS_TIMEOUT_SECONDS = 3.0


class Assembly:
    """Some of the services, ready to serve in this process.

    Args:
        services: Those that run here. Calls to any other go over the network, to the addresses in the settings.
        served: The one of them whose methods can be called from outside.
        peer: What it proves itself with to the others. None: nothing is encrypted on the way to them.
    """

    def __init__(
        self, settings: Settings, services: Iterable[Service], served: Service, peer: Peer | None = None
    ) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._served = served
        self._peer = peer
        self._stores: list[Store] = []
        self._channels: dict[str, Any] = {}
        self._endpoints: dict[str, Endpoint] = {}
        here = list(services)
        # Whoever verifies tokens asks the users service for its keys.
        for name in {users.SERVICE.name, *(name for service in here for name in service.calls)}:
            self._channels[name] = self._channel(name, here)
        self._verifier = Verifier(self._fetch_keys)
        admission = Admission(settings.max_calls)
        allowed = callers.allowed(settings)
        for service in here:
            # A call within the process was admitted when it came in.
            limit = admission if service is served else None
            # The users service looks at the account itself, and what has no data changes nothing itself.
            looks_itself = service is users.SERVICE or service.migrations is None
            require_standing = None if looks_itself else self._require_standing
            servicers = service.servicers(self._parts(service))
            if set(servicers) != set(service.contracts):
                raise ValueError(f"the {service.name} service serves {set(servicers)}, not the contracts that it names")
            if service is not GATEWAY and not allowed.keys() >= servicers.keys():
                raise ValueError(f"the table of allowed callers names not all contracts of the {service.name} service")
            self._endpoints |= endpoints_of(
                servicers, self._verifier, self.metrics, limit, require_standing, callers=allowed
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
            max_calls=self._settings.max_calls,
            reflects=self._settings.reflection,
            shares_port=shares_port,
            internal=self._served is not GATEWAY,
            certificate=certificate,
        )

    async def close(self) -> None:
        """Finish what is waiting to be written, and close all channels."""
        for channel in self._channels.values():
            await channel.close()
        for store in self._stores:
            store.close()

    def _channel(self, name: str, here: list[Service]) -> Any:
        service = SERVICES[name]
        if service in here:
            return LocalChannel(self._endpoints)
        pool = descriptor_pool.Default()
        contracts = [pool.FindServiceByName(contract) for contract in service.contracts]
        return RemoteChannel(address_of(self._settings, name), contracts, self._peer, name)

    def _parts(self, service: Service) -> Parts:
        database = None
        if service.migrations is not None:
            writes = self.metrics.committed(service.name)
            database = open_store(self._settings, service, writes.observe)
            self._stores.append(database)
        return Parts(self._settings, {name: self._channels[name] for name in service.calls}, database)

    async def _fetch_keys(self) -> Mapping[str, bytes]:
        stub = auth_pb2_grpc.AuthServiceStub(self._channels["users"])
        published = await stub.GetKeySet(auth_pb2.GetKeySetRequest(), timeout=_KEYS_TIMEOUT_SECONDS)
        return {key.kid: key.x for key in published.keys}

    async def _require_standing(self, caller: Caller) -> None:
        stub = users_pb2_grpc.UserServiceStub(self._channels["users"])
        user = (await stub.GetUser(users_pb2.GetUserRequest(user_id=caller.user_id))).user
        if not user.private_details.active:
            raise account_inactive()


def address_of(settings: Settings, name: str) -> str:
    """Where a service is when it runs apart."""
    address: str = getattr(settings, f"{name}_address")
    return address

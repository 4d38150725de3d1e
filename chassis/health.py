"""The standard health service (grpc.health.v1). Its streams end when the server drains: they do not hold it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2

from chassis import errors
from chassis.errors import Reason

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

NAME = "grpc.health.v1.Health"


def unwatched(why: str) -> errors.Unimplemented:
    """The answer to a Watch too many.

    gRPC's clients, which begin one with each connection, take every other error for a server that is not well, and do
    not call it.
    """
    return errors.Unimplemented(Reason.REASON_TOO_MANY_WATCHES, f"{why}; ask again and again with Check")


class HealthServicer:
    """Tells whether the server and each of its services are serving.

    Args:
        services: The full names of the services; the empty name is the server as a whole.
        draining: Set when the server is about to stop.
    """

    def __init__(self, services: Iterable[str], draining: asyncio.Event) -> None:
        self._services = {"", *services}
        self._draining = draining

    async def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == _SERVICE_UNKNOWN:
            text = "service: no such service here; List names them, and the empty name is the server as a whole"
            raise errors.NotFound(Reason.REASON_SERVICE_NOT_FOUND, text)
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: health_pb2.HealthListRequest, context: object) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._services}
        )

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if self._draining.is_set():
            # gRPC's clients begin a Watch anew at once where one ends that had an answer, and later where it had none.
            raise errors.unavailable()
        status = self._status(request.service)
        yield health_pb2.HealthCheckResponse(status=status)
        await self._draining.wait()
        if self._status(request.service) != status:
            yield health_pb2.HealthCheckResponse(status=_NOT_SERVING)

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        if service not in self._services:
            return _SERVICE_UNKNOWN
        return _NOT_SERVING if self._draining.is_set() else _SERVING

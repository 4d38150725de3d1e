"""A channel to a service in another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor, descriptor_pb2, message

from chassis import tls
from chassis.call import (
    AUTHORIZATION_KEY,
    CLIENT_ADDRESS_KEY,
    CLIENT_AGENT_KEY,
    TRACEPARENT_KEY,
    current,
    new_trace_id,
    traceparent,
)

DEFAULT_TIMEOUT_SECONDS = 10.0
_IDEMPOTENT = (
    descriptor_pb2.MethodOptions.IDEMPOTENT,
    descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
)


def service_config(services: Sequence[descriptor.ServiceDescriptor]) -> str:
    """The gRPC service config for clients of some services: idempotent methods are tried again while UNAVAILABLE.

    Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    """
    idempotent = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.GetOptions().idempotency_level in _IDEMPOTENT
    ]
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": idempotent, "retryPolicy": retry}] if idempotent else [],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }
    )


class RemoteChannel:
    """What a generated stub needs of a `grpc.aio.Channel`, for methods with one request and one response.

    A call ends with the call under way, or after `DEFAULT_TIMEOUT_SECONDS`. It passes on that call's token and trace,
    and its origin where it may change something.

    Args:
        address: host:port, or a gRPC name to resolve.
        services: What is called there.
        peer: What this service proves itself with, and knows others by. None: nothing is encrypted.
        name: Of the service that is called: the certificate there must be for it, whatever the address.
    """

    def __init__(
        self,
        address: str,
        services: Sequence[descriptor.ServiceDescriptor],
        peer: tls.Peer | None = None,
        name: str = "",
    ) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config(services)),
            ("grpc.enable_retries", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            # A part that died is there again within a second or two: who waits longer than that adds to it.
            ("grpc.max_reconnect_backoff_ms", 500),
            # Else all channels of a process to one address share a connection, also those of two suites.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if peer is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            options.append(("grpc.ssl_target_name_override", name))
            self._channel = grpc.aio.secure_channel(address, peer.channel_credentials(), options=options)
        self._changing = {
            f"/{service.full_name}/{method.name}"
            for service in services
            for method in service.methods
            if method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
        }

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _UnaryUnary:
        return _UnaryUnary(self._channel.unary_unary(method, *args, **kwargs), method in self._changing)

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)


class _UnaryUnary:
    def __init__(self, inner: grpc.aio.UnaryUnaryMultiCallable[Any, Any], tells_origin: bool) -> None:
        self._inner = inner
        self._tells_origin = tells_origin

    def __call__(
        self,
        request: message.Message,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **options: Any,
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        timeout = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        parent = current.get()
        sent = list(metadata or ())
        if parent is not None:
            timeout = min(timeout, max(parent.deadline - asyncio.get_running_loop().time(), 0))
            if parent.authorization and all(key != AUTHORIZATION_KEY for key, _ in sent):
                sent.append((AUTHORIZATION_KEY, parent.authorization))
            if self._tells_origin:
                sent.append((CLIENT_ADDRESS_KEY, parent.origin.address))
                sent.append((CLIENT_AGENT_KEY, parent.origin.user_agent))
        sent.append((TRACEPARENT_KEY, traceparent(parent.trace_id if parent is not None else new_trace_id())))
        return self._inner(request, timeout=timeout, metadata=sent, **options)

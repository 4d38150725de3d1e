"""Service configs: what gRPC clients do by themselves about calls that fail, in any language.

Sources: https://github.com/grpc/grpc/blob/master/doc/service_config.md, of retries
https://github.com/grpc/proposal/blob/master/A6-client-retries.md, and of health
https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor, descriptor_pb2

_IDEMPOTENT = (
    descriptor_pb2.MethodOptions.IDEMPOTENT,
    descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
)
# gRPC itself answers CANCELLED to what meets the stop of a server on its way.
_RETRYABLE = ["UNAVAILABLE", "CANCELLED"]
# The most that gRPC takes. A replica that dies may leave hundreds of calls of one client: less than half of so many are
# tried again at once.
_MOST_TOKENS = 1000


def between_parts(services: Sequence[descriptor.ServiceDescriptor]) -> str:
    """For the channels of the suite, as JSON: idempotent methods are tried again, within half a second.

    For a part that is away these channels wait by themselves.
    """
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": _RETRYABLE,
    }
    idempotent = _idempotent(services)
    return json.dumps(_config([{"name": idempotent, "retryPolicy": policy}] if idempotent else []))


def of_clients(services: Sequence[descriptor.ServiceDescriptor]) -> dict[str, Any]:
    """For clients, which do not notice then that a part is started again.

    Every call waits for a connection, until its deadline. Idempotent methods are tried again for about seven seconds.
    """
    policy = {
        # gRPC makes no more.
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "5s",
        "backoffMultiplier": 4,
        "retryableStatusCodes": _RETRYABLE,
    }
    return _config(
        [
            {"name": _idempotent(services), "waitForReady": True, "retryPolicy": policy},
            # All others.
            {"name": [{}], "waitForReady": True},
        ]
    )


def _idempotent(services: Sequence[descriptor.ServiceDescriptor]) -> list[dict[str, str]]:
    return [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.GetOptions().idempotency_level in _IDEMPOTENT
    ]


def _config(methods: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        # A replica that is about to stop tells so, and is called no more. "" is the server as a whole.
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": methods,
        # Of many calls that fail not all are tried again: that would make it worse.
        "retryThrottling": {"maxTokens": _MOST_TOKENS, "tokenRatio": 0.1},
    }

"""`python -m suite.probe NAME`: asks the part of this container for its health. Succeeds if it is serving.

What `insta check NAME` asks of a part on this machine, at a third of its cost: that command loads the whole suite, and
an orchestrator asks every few seconds. Whatever has a probe for gRPC of its own has no certificate to show.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import settings as chassis_settings
from chassis import tls
from chassis.settings import Settings

_TIMEOUT_SECONDS = 4.0


def main(name: str) -> None:
    settings = chassis_settings.from_environment(os.environ)
    with _channel(settings, name) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{name} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")


def _channel(settings: Settings, name: str) -> grpc.Channel:
    if name == "gateway":
        if settings.tls_certificate is None or settings.tls_key is None:
            return grpc.insecure_channel(settings.listen)
        # The very certificate that the gateway was given, whoever issued it.
        own = tls.certificate(settings.tls_certificate, settings.tls_key)
        return _secure(settings.listen, grpc.ssl_channel_credentials(own.chain), next(iter(own.names), ""))
    if settings.peer_tls is None:
        return grpc.insecure_channel(settings.listen)
    return _secure(settings.listen, tls.peer(settings.peer_tls).channel_credentials(), name)


def _secure(address: str, credentials: grpc.ChannelCredentials, name: str) -> grpc.Channel:
    options = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.secure_channel(address, credentials, options)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as failure:
        sys.exit(f"no answer: {failure.code().name}, {failure.details()}")
    except (chassis_settings.SettingError, tls.TLSError) as wrong:
        sys.exit(str(wrong))

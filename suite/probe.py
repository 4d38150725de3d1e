"""`python -m suite.probe NAME`: asks the part of this container for its health. Succeeds if it is serving.

What `insta check NAME` asks, at a quarter of its cost: that command loads the whole suite, this nothing of it, and an
orchestrator asks every few seconds. The probes for gRPC that some have of their own have no certificate to show.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_SECONDS = 4.0


def main(name: str) -> None:
    with _channel(name) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{name} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")


def _channel(name: str) -> grpc.Channel:
    """To the part, as its own settings say that it serves."""
    address = os.environ["INSTA_LISTEN"]
    if name == "gateway":
        if "INSTA_TLS_CERTIFICATE" not in os.environ:
            return grpc.insecure_channel(address)
        # The very certificate that the gateway was given, whoever issued it.
        chain = Path(os.environ["INSTA_TLS_CERTIFICATE"]).read_bytes()
        return _secure(address, grpc.ssl_channel_credentials(chain), _name_in(chain))
    if "INSTA_PEER_TLS" not in os.environ:
        return grpc.insecure_channel(address)
    folder = Path(os.environ["INSTA_PEER_TLS"])
    authority, key, certificate = ((folder / file).read_bytes() for file in ("ca.crt", "tls.key", "tls.crt"))
    return _secure(address, grpc.ssl_channel_credentials(authority, key, certificate), name)


def _secure(address: str, credentials: grpc.ChannelCredentials, name: str) -> grpc.Channel:
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])


def _name_in(chain: bytes) -> str:
    # It takes as long to load as all the rest, and only the gateway needs it.
    from cryptography import x509

    (own, *_) = x509.load_pem_x509_certificates(chain)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)[0]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as failure:
        sys.exit(f"no answer: {failure.code().name}, {failure.details()}")
    except OSError as failure:
        sys.exit(f"{failure.filename} cannot be read: {failure.strerror}")

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
# Not by way of a proxy that the environment names.
_OPTIONS = [("grpc.enable_http_proxy", 0)]


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
            return grpc.insecure_channel(address, _OPTIONS)
        # The very certificate that it shows, whoever issued it. The file may hold a newer one, which the gateway reads
        # when it is started again.
        shown = _certificate_at(address)
        return _secure(address, grpc.ssl_channel_credentials(shown), _name_in(shown))
    if "INSTA_PEER_TLS" not in os.environ:
        return grpc.insecure_channel(address, _OPTIONS)
    folder = Path(os.environ["INSTA_PEER_TLS"])
    authority, key, certificate = ((folder / file).read_bytes() for file in ("ca.crt", "tls.key", "tls.crt"))
    return _secure(address, grpc.ssl_channel_credentials(authority, key, certificate), name)


def _secure(address: str, credentials: grpc.ChannelCredentials, name: str) -> grpc.Channel:
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", name)]
    return grpc.secure_channel(address, credentials, options)


def _certificate_at(address: str) -> bytes:
    """What a server on host:port proves itself with, in PEM."""
    # They take as long to load as all the rest, and only the gateway needs them.
    import socket
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_SECONDS) as connection,
        context.wrap_socket(connection) as encrypted,
    ):
        shown = encrypted.getpeercert(binary_form=True)
    assert shown is not None
    return ssl.DER_cert_to_PEM_cert(shown).encode()


def _name_in(certificate: bytes) -> str:
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(certificate)
    try:
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return str(loaded.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    hosts = names.get_values_for_type(x509.DNSName)
    return hosts[0] if hosts else str(names.get_values_for_type(x509.IPAddress)[0])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as failure:
        sys.exit(f"no answer: {failure.code().name}, {failure.details()}")
    except OSError as failure:
        unreadable = f"{failure.filename} cannot be read: {failure.strerror}"
        sys.exit(unreadable if failure.filename else f"no answer: {failure}")

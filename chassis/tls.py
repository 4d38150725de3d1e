"""TLS: the certificates that a server and a channel prove themselves with, and the names of who calls."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from chassis import logs

# As Kubernetes names them in a secret with a certificate.
CA = "ca.crt"
CERTIFICATE = "tls.crt"
KEY = "tls.key"
_REMEMBERED_CONNECTIONS = 1_000
_WARNED_BEFORE = datetime.timedelta(days=14)

log = logs.get(__name__)


class TLSError(Exception):
    """A certificate or key cannot be used; the text names the file and what to do."""


@dataclass(frozen=True)
class Certificate:
    """What a server proves with who it is.

    Attributes:
        chain: PEM, its own first.
        key: PEM.
        names: The DNS names that it is for.
    """

    chain: bytes
    key: bytes
    names: tuple[str, ...]

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that everybody may call."""
        return grpc.ssl_server_credentials([(self.key, self.chain)])


@dataclass(frozen=True)
class Peer:
    """What a service proves with to others who it is, and what it knows them by.

    Attributes:
        authority: PEM: who issues the certificates of all services.
    """

    certificate: Certificate
    authority: bytes

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that only services may call."""
        pair = (self.certificate.key, self.certificate.chain)
        return grpc.ssl_server_credentials([pair], root_certificates=self.authority, require_client_auth=True)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For channels to other services."""
        return grpc.ssl_channel_credentials(self.authority, self.certificate.key, self.certificate.chain)


def certificate(chain: Path, key: Path) -> Certificate:
    """A certificate and its key, from PEM files.

    Raises:
        TLSError: they cannot be read, are not valid now, or do not belong together.
    """
    certificates = _certificates(chain)
    key_bytes = _read(key)
    try:
        private = serialization.load_pem_private_key(key_bytes, password=None)
    except (ValueError, TypeError):
        raise TLSError(f"{key} holds no private key in PEM, or one with a password") from None
    if private.public_key() != certificates[0].public_key():
        raise TLSError(f"{key} is not the key of the certificate in {chain}")
    left = certificates[0].not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left < _WARNED_BEFORE:
        log.warning("a certificate expires soon", file=str(chain), days=left.days)
    # No refusal: Kubernetes mounts secrets so that groups can read them.
    if key.stat().st_mode & 0o077:
        log.warning("a private key can be read by others than its owner; chmod 600 mends it", file=str(key))
    return Certificate(_read(chain), key_bytes, names_of(certificates[0]))


def peer(folder: Path) -> Peer:
    """The certificate, the key and the authority in a folder: tls.crt, tls.key and ca.crt.

    Raises:
        TLSError: as `certificate`, or the authority did not issue the certificate.
    """
    authorities = _certificates(folder / CA)
    own = certificate(folder / CERTIFICATE, folder / KEY)
    *_, last = x509.load_pem_x509_certificates(own.chain)
    if not any(issued(last, by=authority) or last == authority for authority in authorities):
        raise TLSError(f"{folder / CERTIFICATE} was not issued by the authority in {folder / CA}")
    return Peer(own, _read(folder / CA))


def issued(certificate: x509.Certificate, *, by: x509.Certificate) -> bool:
    """Whether an authority signed a certificate."""
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


class Callers:
    """Tells the names of the services that call a server, by their certificates.

    Asking gRPC for all that it knows of a connection takes 7 microseconds, asking for its address and for the names
    without their kinds 1.5. So the former is done once for each connection, and what it answered is found again by the
    latter: an address alone could be that of a later connection.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], frozenset[str]] = {}

    def names(self, context: grpc.aio.ServicerContext[Any, Any]) -> frozenset[str]:
        """The DNS names in the certificate of who calls, which gRPC has verified."""
        connection = (context.peer(), context.peer_identity_key(), *(context.peer_identities() or ()))
        names = self._known.get(connection)
        if names is None:
            # `x509_common_name` and names of other kinds name no service.
            names = frozenset(_text(name) for name in context.auth_context().get("peer_dns", ()))
            if len(self._known) >= _REMEMBERED_CONNECTIONS:
                del self._known[next(iter(self._known))]
            self._known[connection] = names
        return names


def _text(name: bytes | str) -> str:
    return name if isinstance(name, str) else name.decode("ascii", "replace")


def _certificates(file: Path) -> Sequence[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(_read(file))
    except ValueError:
        raise TLSError(f"{file} holds no certificate in PEM") from None
    now = datetime.datetime.now(datetime.UTC)
    for one in certificates:
        if one.not_valid_after_utc < now:
            raise TLSError(f"{file} has expired, on {one.not_valid_after_utc:%d %B %Y}")
        if one.not_valid_before_utc > now:
            raise TLSError(f"{file} is not valid before {one.not_valid_before_utc:%d %B %Y %H:%M} UTC")
    return certificates


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as failure:
        raise TLSError(f"{file} cannot be read: {failure.strerror}") from None

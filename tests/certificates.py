"""Certificates in tests: how a service proves itself to a part that runs apart, and how others pretend to be one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Key = ec.EllipticCurvePrivateKey

_LONE: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]


def credentials_of(folder: Path) -> grpc.ChannelCredentials:
    """Of the service that the certificate in a folder is for."""
    own = ((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.ssl_channel_credentials(*own)


def channel_to(name: str, address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel to a server whose certificate is for `name`, whatever its address. Without credentials: plaintext."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_LONE)
    options = [*_LONE, ("grpc.ssl_target_name_override", name)]
    return grpc.aio.secure_channel(address, credentials, options=options)


class Authority:
    """Issues certificates that nobody in their right mind would issue, too.

    Args:
        folder: With the certificate and the key of an authority. None: a new authority.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
            assert isinstance(key, Key)
            self.key = key
            self.certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
            return
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = _name("an authority of the tests")
        self.certificate = (
            _builder(name, name, self.key, -1, 40)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def sign(
        self,
        names: Sequence[x509.GeneralName],
        key: Key,
        *,
        common_name: str = "",
        begins: float = -1,
        ends: float = 20,
    ) -> bytes:
        """A certificate in PEM, valid from and to so many days from now."""
        builder = _builder(_name(common_name), self.certificate.subject, key, begins, ends)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, *names: str, **how: Any) -> Path:
        """Fill a folder with what a service of these DNS names proves itself with."""
        return self.issue_for(folder, [x509.DNSName(name) for name in names], **how)

    def issue_for(self, folder: Path, names: Sequence[x509.GeneralName], **how: Any) -> Path:
        """Fill a folder with what somebody of these names proves themselves with."""
        key = ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        (folder / "tls.crt").write_bytes(self.sign(names, key, **how))
        (folder / "tls.key").touch(0o600)
        (folder / "tls.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return folder


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else [])


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, begins: float, ends: float) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins if begins < ends else ends - 1))
        .not_valid_after(now + datetime.timedelta(days=ends))
    )

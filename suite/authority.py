"""A private certificate authority in a folder, and the certificates that it issues to services.

The layout: `ca/` holds the authority with its key, and a folder for each service what `INSTA_PEER_TLS` takes.

Whoever has the key of the authority can be any service. So the authority is for one suite only, and its key is needed
for nothing but to issue and renew.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from chassis.tls import CA, CERTIFICATE, KEY, issued, names_of

AUTHORITY = "ca"
_AUTHORITY_KEY = "ca.key"
# Every service has to be given a new authority at once, so it lives long. A certificate is renewed by one command, and
# one that was stolen serves the thief no longer than this: there is no list of revoked ones.
_AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
_LIFETIME = datetime.timedelta(days=365)
_RENEWED_BEFORE = datetime.timedelta(days=30)
# The clocks of two machines differ.
_LEEWAY = datetime.timedelta(minutes=5)
_LABEL = re.compile("[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class AuthorityError(Exception):
    """A certificate cannot be issued; the text says why and what to do."""


@dataclass(frozen=True)
class Issued:
    """What became of a certificate.

    Attributes:
        name: Of the service; "ca" is the authority.
        done: made, renewed or kept.
    """

    name: str
    done: str
    valid_until: datetime.datetime


def is_label(name: str) -> bool:
    """Whether a service can have this name: a DNS label that begins with a letter."""
    return _LABEL.fullmatch(name) is not None and name != AUTHORITY


def issue(folder: Path, names: Iterable[str]) -> list[Issued]:
    """Give each service a certificate that is valid for a month at least, and the authority to issue it.

    What is there and valid is kept. An interruption leaves nothing that the next call would not complete, and two calls
    at once wait for each other.

    Raises:
        AuthorityError: what is there was not made here, or cannot be read or written.
    """
    try:
        with _locked(folder / AUTHORITY):
            done, authority = _authority(folder / AUTHORITY)
            return [
                Issued(AUTHORITY, done, authority.not_valid_after_utc),
                *(_certificate(folder, name, authority) for name in names),
            ]
    except OSError as failure:
        raise AuthorityError(f"{failure.filename or folder} cannot be used: {failure.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _authority(folder: Path) -> tuple[str, x509.Certificate]:
    """The authority, and whether it was made or kept. It is never replaced: nobody would trust what it issued."""
    file = folder / CA
    if file.exists():
        authority = _read(file)
        if authority is None:
            raise AuthorityError(f"{file} holds no certificate")
        if authority.not_valid_after_utc < _now():
            text = (
                f"{file} has expired; move {folder.parent} away, and all services get certificates of a new authority"
            )
            raise AuthorityError(text)
        return "kept", authority
    key = _key(folder / _AUTHORITY_KEY)
    # Two authorities of one name would be mistaken for each other.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"insta authority {secrets.token_hex(4)}")])
    usage = {name: name in ("key_cert_sign", "crl_sign") for name in _USAGES}
    # No name constraints: they could name the services, but not those that the operator has yet to think of.
    authority = (
        _builder(subject, subject, key, _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(file, authority.public_bytes(serialization.Encoding.PEM))
    return "made", authority


def _certificate(folder: Path, name: str, authority: x509.Certificate) -> Issued:
    own = folder / name
    own.mkdir(mode=0o700, exist_ok=True)
    authority_bytes = authority.public_bytes(serialization.Encoding.PEM)
    _own_authority(own / CA, authority_bytes)
    there = _read(own / CERTIFICATE)
    key = _key(own / KEY)
    if there is not None and _is_good(there, name, key, authority):
        return Issued(name, "kept", there.not_valid_after_utc)
    signer = _signer(folder / AUTHORITY / _AUTHORITY_KEY, authority)
    until = min(_now() + _LIFETIME, authority.not_valid_after_utc) - _now()
    usage = {usage: usage == "digital_signature" for usage in _USAGES}
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        _builder(subject, authority.subject, key, until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    # The key stays the same over renewals: so the one file that changes is replaced at once.
    _write(own / CERTIFICATE, made.public_bytes(serialization.Encoding.PEM))
    return Issued(name, "made" if there is None else "renewed", made.not_valid_after_utc)


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _LEEWAY)
        .not_valid_after(_now() + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _own_authority(file: Path, authority: bytes) -> None:
    """What the owner of a certificate trusts."""
    if not file.exists():
        _write(file, authority)
    elif file.read_bytes() != authority:
        text = f"{file} is another authority than the one here; move {file.parent} away to have it made anew"
        raise AuthorityError(text)


def _is_good(
    certificate: x509.Certificate, name: str, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> bool:
    return (
        issued(certificate, by=authority)
        and certificate.public_key() == key.public_key()
        and names_of(certificate) == (name,)
        and certificate.not_valid_after_utc > _now() + _RENEWED_BEFORE
    )


def _read(file: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file; a new one if there is none."""
    if (key := _load(file)) is not None:
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    _write(file, key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password))
    return key


def _signer(file: Path, authority: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    key = _load(file)
    if key is None or key.public_key() != authority.public_key():
        raise AuthorityError(f"{file} is not the key of the authority beside it, without which nothing can be issued")
    return key


def _load(file: Path) -> ec.EllipticCurvePrivateKey | None:
    """The key in a file. None: there is no file."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{file} holds no key of an elliptic curve; move it away to have one made")
    return key


def _write(file: Path, content: bytes) -> None:
    """Replace a file at once and durably. Only its owner may read it."""
    unfinished = file.with_name(f"{file.name}.new")
    # Left by an interruption, perhaps.
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)
    unfinished.rename(file)
    parent = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

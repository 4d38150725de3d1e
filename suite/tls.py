"""The certificates of the parts: the commands that make them, and those that a process is given by its settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from chassis import tls as chassis_tls
from chassis.service import Service
from chassis.settings import Settings
from chassis.tls import Certificate, Peer, TLSError
from suite import authority
from suite.authority import AuthorityError, Issued
from suite.composition import SERVICES

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where they are.  [default: tls in the folder INSTA_DATA]",
)


@click.group(short_help="Make the certificates of parts that run apart.")
def tls() -> None:
    """Make the certificates with which parts that run apart know each other."""


@tls.command(short_help="Make a certificate authority and the certificates of all parts.")
@_folder
@click.pass_obj
def init(settings: Settings, folder: Path | None) -> None:
    """Make a private certificate authority, and a certificate of it for each part of the suite.

    DIR/users, DIR/posts, DIR/social and DIR/gateway hold ca.crt, tls.crt and tls.key: what INSTA_PEER_TLS takes. DIR/ca
    holds the authority. Who has its key can be any service: keep it away from the parts.

    Certificates are valid for a year, the authority for ten. Run it again to renew those that expire within 30 days;
    what is valid is kept, and the authority always. Parts read theirs when they start. `insta apart` does all this by
    itself.
    """
    folder = folder or _root(settings)
    _tell(folder, _issue(folder, SERVICES))
    click.echo("\nGive each part its own folder, and it asks the others for theirs:")
    click.echo(f"  INSTA_PEER_TLS={folder}/users insta serve users")


@tls.command(short_help="Make a certificate for a service of your own.")
@click.argument("name")
@_folder
@click.pass_obj
def issue(settings: Settings, name: str, folder: Path | None) -> None:
    """Make a certificate for a service of your own, which is to call parts of the suite that run apart.

    NAME is a DNS label that begins with a letter: reports, for instance. DIR/NAME then holds ca.crt, tls.crt and
    tls.key. Run it again to renew it. INSTA_ALLOWED_CALLERS says what the service may call; while it names nothing,
    that is only health, reflection and, for staff, channelz.
    """
    if name in SERVICES:
        raise click.ClickException(f"{name} is a part of the suite, whose certificate is made by: insta tls init")
    if not authority.is_label(name):
        text = (
            f"{name!r} cannot be the name of a service: take up to 63 of a-z, 0-9 and -, a letter first, and not 'ca'."
        )
        raise click.ClickException(text)
    folder = folder or _root(settings)
    _tell(folder, _issue(folder, [name]))
    click.echo(
        f"\nLet it in where it calls, with the services that it calls:\n"
        f"  INSTA_ALLOWED_CALLERS=insta.posts.v1.PostService={name} INSTA_PEER_TLS={folder}/posts insta serve posts"
    )


def peer(settings: Settings, service: Service) -> Peer | None:
    """What a part that runs apart proves itself with. None: nothing, as the settings allow it.

    Raises:
        click.ClickException: it should, and cannot; says what to do.
    """
    if settings.peer_tls is None:
        if settings.insecure_plaintext:
            return None
        raise click.ClickException(
            f"without certificates nobody can tell who calls {service.name}, nor {service.name} whom it calls. Make"
            f" them with `insta tls init` and set INSTA_PEER_TLS={_root(settings)}/{service.name}; or, where the"
            " network is private and everybody on it may call all services, set INSTA_INSECURE_PLAINTEXT=true"
            " (--insecure-plaintext)."
        )
    found = _peer(settings.peer_tls)
    if service.name not in found.certificate.names:
        names = ", ".join(found.certificate.names) or "nobody"
        text = f"INSTA_PEER_TLS={settings.peer_tls}: the certificate there is for {names}, and this is {service.name}."
        raise click.ClickException(text)
    return found


def peer_of_operator(settings: Settings) -> Peer | None:
    """What a command proves itself with to a part that runs apart: as set, or else as the gateway of `insta apart`.

    Raises:
        click.ClickException: it cannot be used.
    """
    folder = settings.peer_tls or _root(settings) / "gateway"
    if settings.peer_tls is None and not folder.is_dir():
        return None
    return _peer(folder)


def public(settings: Settings) -> Certificate | None:
    """What the gateway proves itself with to everybody. None: nothing is set.

    Raises:
        click.ClickException: it cannot be used.
    """
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise click.ClickException("INSTA_TLS_CERTIFICATE and INSTA_TLS_KEY belong together; one of them is not set.")
    try:
        return chassis_tls.certificate(settings.tls_certificate, settings.tls_key)
    except TLSError as wrong:
        raise click.ClickException(f"INSTA_TLS_CERTIFICATE, INSTA_TLS_KEY: {wrong}.") from None


def folders(settings: Settings) -> dict[str, Path]:
    """The folder of each part, for all of them on this machine.

    Those in the data folder are made, and renewed when that is due. Those in the folder that INSTA_PEER_TLS names are
    left as they are.

    Raises:
        click.ClickException: they cannot be made.
    """
    root = settings.peer_tls
    if root is None:
        root = _root(settings)
        _issue(root, SERVICES)
    return {name: root / name for name in SERVICES}


def _root(settings: Settings) -> Path:
    return settings.data / "tls"


def _peer(folder: Path) -> Peer:
    try:
        return chassis_tls.peer(folder)
    except TLSError as wrong:
        text = f"INSTA_PEER_TLS={folder}: {wrong}. `insta tls init` makes what is missing or has expired."
        raise click.ClickException(text) from None


def _issue(folder: Path, names: Iterable[str]) -> list[Issued]:
    try:
        return authority.issue(folder, names)
    except AuthorityError as wrong:
        raise click.ClickException(f"{wrong}.") from None


def _tell(folder: Path, issued: list[Issued]) -> None:
    for one in issued:
        click.echo(f"{folder / one.name}: {one.done}, valid until {one.valid_until:%d %B %Y}")

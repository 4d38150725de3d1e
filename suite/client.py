"""How commands reach a running server, any by its address, the parts of the suite by their names, and as whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import grpc

from chassis.settings import Settings
from suite import operator, tls
from suite.composition import GATEWAY, SERVICES, address_of
from suite.serving import listen_address

Metadata = Sequence[tuple[str, str]]

address = click.option(
    "--address",
    metavar="HOST:PORT",
    default=GATEWAY.name,
    help="The server, or the name of a part.  [default: gateway, at INSTA_LISTEN or 127.0.0.1:50051]",
)
trusted = click.option(
    "--tls-ca",
    "authorities",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="INSTA_TLS_CA",
    show_envvar=True,
    help="Speak TLS, and trust the certificates in this PEM file and those that they issued.",
)
token = click.option(
    "--token",
    metavar="TOKEN",
    envvar="INSTA_TOKEN",
    show_envvar=True,
    help="An access token to send, as Login answers it.",
)
as_user = click.option(
    "--as",
    "user",
    metavar="USER",
    help="Call as this person (a username, or id:7), by the right of access to the users database in INSTA_DATA.",
)


@dataclass(frozen=True)
class Target:
    """A server, and how to speak to it.

    Attributes:
        credentials: None: in plaintext.
        name: That its certificate must be for. Empty: the host in the address.
    """

    address: str
    credentials: grpc.ChannelCredentials | None = None
    name: str = ""

    def channel(self) -> grpc.Channel:
        """A channel of its own to the server."""
        options: list[tuple[str, int | str]] = [("grpc.use_local_subchannel_pool", 1)]
        if self.credentials is None:
            return grpc.insecure_channel(self.address, options)
        if self.name:
            options.append(("grpc.ssl_target_name_override", self.name))
        return grpc.secure_channel(self.address, self.credentials, options)


def target(settings: Settings, address: str, authorities: Path | None) -> Target:
    """The server that an argument means: HOST:PORT, or the name of a part, which is where the settings say.

    Args:
        authorities: A PEM file to trust; None: as the settings say.

    Raises:
        click.ClickException: a certificate in the settings cannot be used.
    """
    part = SERVICES.get(address)
    if part is GATEWAY:
        address = listen_address(settings, GATEWAY)
    elif part is not None:
        address = address_of(settings, part.name)
    if authorities is not None:
        return Target(address, grpc.ssl_channel_credentials(authorities.read_bytes()))
    if part is GATEWAY and (own := tls.public(settings)) is not None:
        # The very certificate that the gateway was given, whoever issued it.
        return Target(address, grpc.ssl_channel_credentials(own.chain), next(iter(own.names), ""))
    if part not in (GATEWAY, None) and (peer := tls.peer_of_operator(settings)) is not None:
        return Target(address, peer.channel_credentials(), part.name)
    return Target(address)


def metadata(settings: Settings, token: str | None, user: str | None) -> Metadata:
    """What is sent to be let in: a token that is given, or one issued for a user. Empty: nothing.

    Raises:
        click.ClickException: there is no such user, or the database cannot be used.
    """
    if user is not None:
        token = operator.issue_token(settings, user).text
    return (("authorization", f"Bearer {token}"),) if token else ()

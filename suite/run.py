"""The commands that run the suite: all of it in one process or several, or one part."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import click

from chassis.settings import Settings
from suite import serving, supervisor, tls
from suite.composition import GATEWAY, SERVICES
from suite.serving import Addresses

_insecure_plaintext = click.option(
    "--insecure-plaintext",
    is_flag=True,
    help="Run without TLS beyond this machine, or as one part of several. For private networks only.",
)
_supervised = click.option("--supervised", is_flag=True, hidden=True)


@click.command(short_help="Run the whole suite.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes on one port.")
@_insecure_plaintext
@_supervised
@click.pass_obj
def up(settings: Settings, workers: int, insecure_plaintext: bool, supervised: bool) -> None:
    """Run the whole suite: gRPC on 127.0.0.1:50051, images on 127.0.0.1:8080, /metrics on 127.0.0.1:9090."""
    settings = _exposed(settings, insecure_plaintext)

    def announce(addresses: Addresses) -> None:
        _announce_parts({"gateway": addresses})
        click.echo(_invitation(settings, addresses.grpc))

    if supervised:
        serving.run_supervised(settings, serving.together(), GATEWAY)
    elif workers == 1:
        serving.run(settings, serving.together(), GATEWAY, announce)
    else:
        supervisor.run_workers(settings, workers, announce)


@click.command()
@click.argument("name", metavar="users|posts|social|gateway", type=click.Choice(list(SERVICES)))
@_insecure_plaintext
@_supervised
@click.pass_obj
def serve(settings: Settings, name: str, insecure_plaintext: bool, supervised: bool) -> None:
    """Run one service in this process."""
    settings = _exposed(settings, insecure_plaintext)
    service = SERVICES[name]
    if supervised:
        serving.run_supervised(settings, [service], service)
    else:
        serving.run(settings, [service], service, lambda addresses: _announce_parts({name: addresses}))


@click.command(short_help="Run the four services as four processes.")
@click.pass_obj
def apart(settings: Settings) -> None:
    """Run the four services as four processes, which know each other by certificates that are made for them.

    They are in the folder tls in INSTA_DATA, and renewed at a start within 30 days of their end. With
    INSTA_PEER_TLS=DIR they are those in DIR, as `insta tls init` lays them out.
    """

    def announce(parts: Mapping[str, Addresses]) -> None:
        _announce_parts(parts)
        click.echo(_invitation(settings, parts["gateway"].grpc))

    supervisor.run_apart(settings, announce)


def _exposed(settings: Settings, insecure_plaintext: bool) -> Settings:
    if not insecure_plaintext:
        return settings
    # Processes that this one starts are to know it, too.
    os.environ["INSTA_INSECURE_PLAINTEXT"] = "true"
    return dataclasses.replace(settings, insecure_plaintext=True)


def _announce_parts(parts: Mapping[str, Addresses]) -> None:
    for name, addresses in parts.items():
        click.echo(f"{name:8} gRPC on {addresses.grpc}, metrics on http://{addresses.metrics}/metrics")
    for addresses in parts.values():
        if addresses.images:
            click.echo(f"{'posts':8} images on {addresses.images}")


def _invitation(settings: Settings, address: str) -> str:
    return (
        "\nTry:\n"
        f"  grpcurl {_grpcurl_options(settings, address)}"
        ' -d \'{"username": "ana", "email": "ana@example.com", "password": "correct horse",'
        f' "first_name": "Ana"}}\' {address} insta.gateway.v1.AccountService/Register\n\n'
        "Stop with Ctrl-C."
    )


def _grpcurl_options(settings: Settings, address: str) -> str:
    certificate = tls.public(settings)
    if certificate is None:
        return "-plaintext"
    host = address.rpartition(":")[0]
    name = "" if host in certificate.names or not certificate.names else f" -authority {certificate.names[0]}"
    # It serves as its own authority, whoever issued it.
    return f"-cacert {settings.tls_certificate}{name}"

"""`insta client-config`: the gRPC service config for clients of the gateway."""

from __future__ import annotations

import json

import click
from google.protobuf import descriptor_pool

from chassis import service_config
from suite.composition import GATEWAY


@click.command(short_help="Print the gRPC service config for clients of the gateway.")
def client_config() -> None:
    """Print the gRPC service config for clients of the gateway, as JSON.

    With it a client of any language waits for a connection, and tries idempotent methods again that are UNAVAILABLE
    or CANCELLED: it does not notice that a part is started again, if its deadlines leave some seconds for that.
    """
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in GATEWAY.contracts]
    click.echo(json.dumps(service_config.of_clients(services), indent=2))

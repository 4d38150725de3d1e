"""Tells whether running servers are well, by the standard health service (grpc.health.v1)."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich import box
from rich.console import Console
from rich.table import Table

from chassis.settings import Settings
from suite import client
from suite.client import Target
from suite.composition import GATEWAY

_SERVING = "SERVING"


@dataclass(frozen=True)
class Answer:
    """What a server says of its services, or why it says nothing.

    Attributes:
        statuses: By service; the empty name is the server as a whole.
        seconds: That the answer took, with those of the connection.
        failure: A sentence; empty if it answered.
    """

    statuses: dict[str, str]
    seconds: float
    failure: str = ""


@click.command()
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option(
    "--timeout",
    type=click.FloatRange(0.01),
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="How long to wait for each address.",
)
@client.trusted
@click.pass_obj
def check(settings: Settings, addresses: tuple[str, ...], timeout: float, authorities: Path | None) -> None:
    """Ask running servers for their health. Succeeds if every service of every ADDRESS is serving.

    ADDRESS is HOST:PORT of any gRPC server with the standard health service, or the name of a part, which is asked
    where the settings say that it is and with the certificates that they name; by default the gateway. The milliseconds
    include those of connecting.
    """
    targets = [client.target(settings, address, authorities) for address in addresses or [GATEWAY.name]]
    answers = {target.address: _ask(target, timeout) for target in targets}
    Console().print(_table(answers))
    for answer in answers.values():
        if answer.failure:
            click.echo(answer.failure, err=True)
    if any(answer.failure or set(answer.statuses.values()) != {_SERVING} for answer in answers.values()):
        sys.exit(1)


def _ask(target: Target, seconds: float) -> Answer:
    begun = time.perf_counter()
    deadline = time.monotonic() + seconds
    with target.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            statuses = _statuses(stub, deadline)
        except grpc.RpcError as error:
            return Answer({}, time.perf_counter() - begun, _sentence(target.address, error, seconds))
    named = {service: _name(response.status) for service, response in sorted(statuses.items())}
    return Answer(named, time.perf_counter() - begun)


def _statuses(stub: health_pb2_grpc.HealthStub, deadline: float) -> dict[str, health_pb2.HealthCheckResponse]:
    """The status of each service. A server that cannot list them is asked for itself as a whole."""
    try:
        listed = stub.List(health_pb2.HealthListRequest(), timeout=deadline - time.monotonic())
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return {"": stub.Check(health_pb2.HealthCheckRequest(), timeout=deadline - time.monotonic())}
    return dict(listed.statuses)


def _name(status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> str:
    known = health_pb2.HealthCheckResponse.ServingStatus
    return known.Name(status) if status in known.values() else str(status)


def _sentence(address: str, error: grpc.RpcError, seconds: float) -> str:
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return unreachable(address, error)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{address} did not answer within {seconds:g} seconds."
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"{address} answers, but has no health service (grpc.health.v1.Health)."
    return f"{address} does not tell: {error.code().name}, {error.details()}"


def unreachable(address: str, error: grpc.RpcError) -> str:
    """The sentence for an address at which no server answers."""
    details = error.details() or ""
    why = details.removesuffix(": OK").rpartition(": ")[2].strip("[]").rstrip(".")
    # What a client sees when only one side speaks TLS, or its certificate was refused.
    differs = "Socket closed" in details or "handshake" in details
    hint = "Does it speak TLS, with other certificates?" if differs else "Start it with: insta up"
    return f"{address} cannot be reached ({why}). Is the suite running there? {hint}"


def _table(answers: dict[str, Answer]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("address", overflow="fold")
    table.add_column("service", overflow="fold")
    table.add_column("status")
    table.add_column("ms", justify="right")
    for address, answer in answers.items():
        milliseconds = f"{answer.seconds * 1000:.0f}"
        for service, status in answer.statuses.items():
            colour = "green" if status == _SERVING else "red"
            table.add_row(address, service or "the server as a whole", f"[{colour}]{status}", milliseconds)
        if answer.failure:
            table.add_row(address, "", "[red]NO ANSWER", milliseconds)
    return table

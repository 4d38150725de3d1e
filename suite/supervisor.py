"""Runs several processes as one: the workers of `insta up --workers`, or the four services apart. One that ends is
started again: at once if it was told to stop, and else with a delay that grows."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import click
from prometheus_client import multiprocess

from chassis import logs
from chassis.metrics import of_workers
from chassis.server import hold_port
from chassis.settings import Settings
from suite import serving, tls
from suite.composition import GATEWAY, SERVICES, address_of
from suite.databases import open_store
from suite.serving import Addresses

log = logs.get(__name__)

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0
# A process that lived this long was well: its next restart waits for nothing.
_WELL_AFTER_SECONDS = 10.0
_START_TIMEOUT_SECONDS = 30.0


@dataclass
class Child:
    """A process to keep alive.

    Attributes:
        name: For log lines.
        command: Of the `insta` command: serve users, for instance.
        environment: Settings of its own.
        addresses: Where it listens, as it said when it was ready.
        was_ready: Whether its last process was.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    addresses: Addresses | None = field(default=None, init=False)
    was_ready: bool = field(default=False, init=False)


def run_workers(settings: Settings, count: int, announce: Callable[[Addresses], None]) -> None:
    """Run `count` processes of the whole suite on one port and the same databases, until SIGTERM or SIGINT."""
    listen = serving.listen_address(settings, GATEWAY)
    serving.check_exposure(settings, listen, encrypted=tls.public(settings) is not None)
    with ExitStack() as held:
        for service in SERVICES.values():
            held.enter_context(serving.data_lock(settings, service))
        _bring_up_to_date(settings)
        address = _reserve(held, listen, "INSTA_LISTEN")
        media = _reserve_media(held, settings)
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="insta-metrics-"))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        metrics = serving.serve_metrics(settings, GATEWAY, of_workers())
        environment = {"INSTA_LISTEN": address, "PROMETHEUS_MULTIPROC_DIR": folder, **media}
        workers = [Child(f"worker {number}", ("up",), environment) for number in range(count)]

        def ready() -> None:
            images = next(worker.addresses.images for worker in workers if worker.addresses is not None)
            announce(Addresses(address, metrics, images))

        asyncio.run(_supervise(settings, workers, ready))


def run_apart(settings: Settings, announce: Callable[[Mapping[str, Addresses]], None]) -> None:
    """Run each service as a process of its own, until SIGTERM or SIGINT."""
    with ExitStack() as held:
        for service in SERVICES.values():
            held.enter_context(serving.data_lock(settings, service))
        _bring_up_to_date(settings)
        listen = {
            name: serving.listen_address(settings, GATEWAY) if name == GATEWAY.name else address_of(settings, name)
            for name in SERVICES
        }
        variables = {name: f"INSTA_{name.upper()}_ADDRESS" for name in listen if name != GATEWAY.name}
        reserved = {
            name: _reserve(held, address, variables.get(name, "INSTA_LISTEN")) for name, address in listen.items()
        }
        media = _reserve_media(held, settings)
        certificates = tls.folders(settings)
        addresses = {variable: reserved[name] for name, variable in variables.items()}
        services = [
            Child(
                name,
                ("serve", name),
                {
                    **addresses,
                    "INSTA_LISTEN": reserved[name],
                    "INSTA_PEER_TLS": str(certificates[name]),
                    **media,
                    **_metrics(settings, name),
                },
            )
            for name in SERVICES
        ]

        def ready() -> None:
            announce({child.name: child.addresses for child in services if child.addresses is not None})

        asyncio.run(_supervise(settings, services, ready))


def _bring_up_to_date(settings: Settings) -> None:
    """Apply what is new in the schemas: it takes as long as it takes, and a process that starts has a limit."""
    for service in SERVICES.values():
        if service.migrations is not None:
            open_store(settings, service).close()


def _metrics(settings: Settings, name: str) -> dict[str, str]:
    """Each process has an address of its own; what is set is the gateway's, and port 0 everybody's."""
    if name == GATEWAY.name or settings.metrics_listen.endswith(":0"):
        return {"INSTA_METRICS_LISTEN": settings.metrics_listen} if settings.metrics_listen else {}
    return {"INSTA_METRICS_LISTEN": f"127.0.0.1:{SERVICES[name].metrics_port}"}


def _reserve_media(held: ExitStack, settings: Settings) -> dict[str, str]:
    """Keep the address of images: it is to stay the same when a process is started again."""
    if serving.web_app(settings, SERVICES.values()) is None:
        return {}
    serving.check_exposure(settings, settings.media_listen, encrypted=tls.public(settings) is not None)
    return {"INSTA_MEDIA_LISTEN": _reserve(held, settings.media_listen, "INSTA_MEDIA_LISTEN")}


def _reserve(held: ExitStack, address: str, variable: str) -> str:
    """Keep an address for the processes of this suite. Returns it with the port that it got."""
    try:
        reservation: socket.socket = held.enter_context(hold_port(address))
    except (OSError, ValueError, OverflowError):
        # The address of a service may also be a name that only gRPC understands.
        raise serving.taken(address, variable) from None
    return f"{address.rpartition(':')[0]}:{reservation.getsockname()[1]}"


async def _supervise(settings: Settings, children: list[Child], ready: Callable[[], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    started = asyncio.Queue[Child]()
    keepers = [asyncio.create_task(_keep_alive(child, settings, stopping, started)) for child in children]
    try:
        await _all_started(children, keepers, stopping, started)
        if not stopping.is_set():
            ready()
        # None of them ends before the suite stops, unless by a defect.
        await asyncio.wait([asyncio.ensure_future(stopping.wait()), *keepers], return_when=asyncio.FIRST_COMPLETED)
        _raise_failure(keepers)
    finally:
        stopping.set()
        await asyncio.gather(*keepers, return_exceptions=True)


async def _all_started(
    children: list[Child], keepers: list[asyncio.Task[None]], stopping: asyncio.Event, started: asyncio.Queue[Child]
) -> None:
    waiting = {child.name for child in children}
    stop = asyncio.create_task(stopping.wait())
    while waiting and not stopping.is_set():
        first = asyncio.create_task(started.get())
        await asyncio.wait([first, stop, *keepers], return_when=asyncio.FIRST_COMPLETED)
        _raise_failure(keepers)
        if first.done():
            waiting.discard(first.result().name)
        else:
            first.cancel()
    stop.cancel()


def _raise_failure(keepers: list[asyncio.Task[None]]) -> None:
    for keeper in keepers:
        if keeper.done():
            keeper.result()


async def _keep_alive(child: Child, settings: Settings, stopping: asyncio.Event, started: asyncio.Queue[Child]) -> None:
    """Run a child until the suite stops; start it again when it ends before.

    Raises:
        click.ClickException: it ended before it ever was ready. It said why itself.
    """
    loop = asyncio.get_running_loop()
    delay = _FIRST_DELAY_SECONDS
    stop = asyncio.create_task(stopping.wait())
    while not stopping.is_set():
        began = loop.time()
        exit_code = await _run(child, settings, stop, started)
        if stopping.is_set():
            break
        if exit_code == 0 and child.was_ready:
            # It was told to: who restarts a part is not to wait for it.
            log.info("process stopped; starting it again", process=child.name, exit_code=exit_code)
            delay = _FIRST_DELAY_SECONDS
            continue
        delay = _FIRST_DELAY_SECONDS if loop.time() - began > _WELL_AFTER_SECONDS else delay
        log.error("process died; starting it again", process=child.name, exit_code=exit_code)
        await asyncio.wait([stop], timeout=delay)
        delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
    stop.cancel()


async def _run(
    child: Child, settings: Settings, stop: asyncio.Task[Literal[True]], started: asyncio.Queue[Child]
) -> int | None:
    """Run a child once, until it ends or is to stop. Returns its exit code; None: the system could not start it."""
    try:
        process = await _spawn(child)
    except OSError as failure:
        if child.addresses is None:
            raise click.ClickException(f"{child.name} could not start: {failure.strerror}") from None
        return None
    assert process.stdout is not None
    announced = asyncio.create_task(process.stdout.readline())
    ended = asyncio.create_task(process.wait())
    await asyncio.wait([announced, stop], return_when=asyncio.FIRST_COMPLETED, timeout=_START_TIMEOUT_SECONDS)
    line = announced.result() if announced.done() else b""
    child.was_ready = bool(line)
    if line:
        child.addresses = Addresses(**json.loads(line))
        started.put_nowait(child)
        await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
    announced.cancel()
    if not ended.done():
        await _stop(process, settings.drain_seconds)
    await ended
    _forget(process.pid)
    if child.addresses is None and not stop.done():
        raise click.ClickException(f"{child.name} could not start; its own message is above")
    return process.returncode


async def _spawn(child: Child) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "suite",
        *child.command,
        "--supervised",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **child.environment},
        # A Ctrl-C in the terminal reaches the supervisor only, which stops its children in order.
        start_new_session=True,
    )


async def _stop(process: asyncio.subprocess.Process, drain_seconds: int) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), drain_seconds + 5)
    except TimeoutError:
        log.error("process did not stop; killing it", pid=process.pid)
        process.kill()
        await process.wait()


def _forget(pid: int) -> None:
    """Let the gauges of a dead worker go; what it counted stays."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)

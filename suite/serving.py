"""Runs services in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import click
import prometheus_client
import uvloop
from starlette.types import ASGIApp

from chassis import logs
from chassis.server import NoSocketFolder, is_loopback
from chassis.service import Service
from chassis.settings import Settings
from chassis.web import WebServer
from suite import tls
from suite.composition import GATEWAY, SERVICES, Assembly
from suite.databases import wait_for_servers

_ALL_ADDRESSES = ("0.0.0.0", "[::]")

log = logs.get(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where a process listens.

    Attributes:
        images: The URL; empty if it serves none.
    """

    grpc: str
    metrics: str
    images: str = ""


def together() -> list[Service]:
    """All services, for one process that serves the gateway."""
    return list(SERVICES.values())


def run(
    settings: Settings, services: Iterable[Service], served: Service, announce: Callable[[Addresses], None]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        announce: Told where, once calls are answered.

    Raises:
        click.ClickException: an address or the data folder cannot be used; says what to change.
    """
    services = list(services)
    _wake_without_haste()
    with ExitStack() as held:
        for service in services:
            held.enter_context(data_lock(settings, service))
        wait_for_servers(settings, services)
        uvloop.run(_serve(settings, services, served, announce, supervised=False))


def run_supervised(settings: Settings, services: Iterable[Service], served: Service) -> None:
    """Serve as one of several processes, until told to stop or the supervisor is gone.

    Writes one line of JSON to standard output when calls are answered. The supervisor holds the locks, the port and, of
    workers, the metrics.
    """

    def announce(addresses: Addresses) -> None:
        sys.stdout.write(json.dumps(dataclasses.asdict(addresses)) + "\n")
        sys.stdout.flush()

    services = list(services)
    _wake_without_haste()
    wait_for_servers(settings, services)
    uvloop.run(_serve(settings, services, served, announce, supervised=True))


def _wake_without_haste() -> None:
    """Let a thread of this process that has something to do wait until the one at work on its core stops.

    A call passes between three threads of gRPC and that of the event loop. Where they share a core each would interrupt
    the one before it: a tenth of a call's cost together, a quarter apart. It must be said before there are threads.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        # Some sandboxes forbid it; nothing but speed depends on it.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def _serve(
    settings: Settings,
    services: list[Service],
    served: Service,
    announce: Callable[[Addresses], None],
    *,
    supervised: bool,
) -> None:
    # Modules stay: neither what follows nor the calls are to look through them for garbage.
    gc.freeze()
    listen = listen_address(settings, served)
    peer = None if len(services) == len(SERVICES) else tls.peer(settings, served)
    certificate = tls.public(settings) if served is GATEWAY else peer
    check_exposure(settings, listen, encrypted=certificate is not None)
    web = _web_server(settings, services, shares_port=supervised)
    if web is not None:
        # The URLs of images are made of it.
        settings = dataclasses.replace(settings, media_listen=web.address)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    assembly = Assembly(settings, services, served, peer)
    drained_by = loop.time()
    try:
        assembly.begin()
        # Before any call comes in: a token may be one of a session that has ended.
        await assembly.first_news()
        metrics = ""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            metrics = serve_metrics(settings, served, assembly.metrics.registry)
        server = assembly.server(certificate, shares_port=supervised)
        try:
            port = await server.start(listen)
        except NoSocketFolder as failure:
            raise click.ClickException(str(failure)) from None
        except OSError:
            raise taken(listen, "INSTA_LISTEN") from None
        if web is not None:
            try:
                web.start()
            except OSError:
                raise taken(web.address, "INSTA_MEDIA_LISTEN") from None
        # What is there now stays. To look through all of it for garbage would halt every call for some 50 ms, at times.
        gc.collect()
        gc.freeze()
        images_url = "" if web is None else settings.media_base_url
        announce(Addresses(f"{listen.rpartition(':')[0]}:{port}", metrics, images_url))
        if supervised:
            # The supervisor holds the other end; it closes when the supervisor dies, however it dies.
            loop.add_reader(sys.stdin.fileno(), stopping.set)
        await stopping.wait()
        if supervised:
            loop.remove_reader(sys.stdin.fileno())
        log.info("draining", seconds=settings.drain_seconds)
        drained_by = loop.time() + settings.drain_seconds
        async with asyncio.TaskGroup() as stops:
            stops.create_task(server.drain(settings.drain_seconds))
            if web is not None:
                stops.create_task(web.stop(settings.drain_seconds))
    finally:
        if web is not None:
            await web.stop(0)
        await assembly.close(max(drained_by - loop.time(), 0))
    log.info("stopped")


def _web_server(settings: Settings, services: Iterable[Service], *, shares_port: bool) -> WebServer | None:
    """A server of what these services serve over HTTP; it has its port. None: nothing."""
    app = web_app(settings, services)
    if app is None:
        return None
    check_exposure(settings, settings.media_listen, encrypted=tls.public(settings) is not None)
    if settings.media_listen.rpartition(":")[0] in _ALL_ADDRESSES and not settings.media_public_url:
        raise click.ClickException(
            f"INSTA_MEDIA_LISTEN={settings.media_listen} names no address from which clients can load images. Say which"
            " does: INSTA_MEDIA_PUBLIC_URL=http://HOST:PORT/media"
        )
    try:
        return WebServer(
            app,
            settings.media_listen,
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            shares_port=shares_port,
        )
    except OSError:
        raise taken(settings.media_listen, "INSTA_MEDIA_LISTEN") from None


def web_app(settings: Settings, services: Iterable[Service]) -> ASGIApp | None:
    """What one of these services serves over HTTP. None: no one does."""
    return next((app for service in services if (app := service.web(settings)) is not None), None)


def listen_address(settings: Settings, served: Service) -> str:
    """host:port of gRPC."""
    return settings.listen or f"127.0.0.1:{served.port}"


def serve_metrics(settings: Settings, served: Service, registry: prometheus_client.CollectorRegistry) -> str:
    """Serve /metrics on a thread. Returns host:port."""
    address = settings.metrics_listen or f"127.0.0.1:{served.metrics_port}"
    check_exposure(settings, address)
    host, _, port = address.rpartition(":")
    try:
        server, _ = prometheus_client.start_http_server(int(port), host.strip("[]"), registry)
    except OSError:
        raise taken(address, "INSTA_METRICS_LISTEN") from None
    return f"{host}:{server.server_port}"


def check_exposure(settings: Settings, address: str, *, encrypted: bool = False) -> None:
    """Refuse to listen where others can read what is not encrypted."""
    if not encrypted and not is_loopback(address) and not settings.insecure_plaintext:
        raise click.ClickException(
            f"{address} can be reached from other machines, and nothing would be encrypted. Listen on 127.0.0.1, or,"
            " where the network is private, set INSTA_INSECURE_PLAINTEXT=true (--insecure-plaintext)."
        )


def taken(address: str, variable: str) -> click.ClickException:
    """The sentence for an address that cannot be listened on."""
    return click.ClickException(
        f"cannot listen on {address}: something else does, or it is not an address of this machine. Stop it, or choose"
        f" another with {variable}=HOST:PORT."
    )


@contextmanager
def data_lock(settings: Settings, service: Service) -> Iterator[None]:
    """Keep a second suite from the database of a service. One on a server is for any number of suites."""
    if service.migrations is None or service.name in settings.database_addresses:
        yield
        return
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(settings.data / f"{service.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        text = f"cannot use the data folder {settings.data}: {failure.strerror}. Set INSTA_DATA to another."
        raise click.ClickException(text) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = (
            f"the {service.name} service is running on the data folder {settings.data} already. Stop it, or set"
            " INSTA_DATA to another folder."
        )
        raise click.ClickException(text) from None
    else:
        yield
    finally:
        os.close(lock)

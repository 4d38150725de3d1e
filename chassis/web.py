"""An HTTP server beside that of gRPC, for what everybody may fetch: on a thread, and an event loop, of its own."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from chassis import logs
from chassis.server import hold_port, join_port

# Each takes a file descriptor, and a second while it gets a file. Many systems give a process 1,024.
_MOST_CONNECTIONS = 250
# Nobody alone takes all of them. No fewer than half, since many may come from one address: behind a proxy, or the NAT
# of an office or of Docker. It is enough for 20 browsers at once, which have six connections each.
_MOST_OF_ONE_PEER = 125
_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 5
_LONGEST_HANDSHAKE_SECONDS = 5.0
# While no descriptor is left for a connection.
_ACCEPT_PAUSE_SECONDS = 0.2
# For a request to come whole.
_LONGEST_REQUEST_SECONDS = 10.0
# For an answer to begin, and for each piece of it to be taken: at less than some 4 KB a second nobody sees images.
_LONGEST_PIECE_SECONDS = 30.0
_PIECE_BYTES = 64 * 1024
_LARGEST_HEAD = 8 * 1024
# What the thread takes to end once nothing is under way, at most.
_END_SECONDS = 2.0
# Whatever a browser is brought to take an answer for, it does nothing.
_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "default-src 'none'; sandbox")]
_NOT_KEPT = ("Cache-Control", "no-store")

log = logs.get(__name__)


class WebServer:
    """Serves an ASGI app on one address, whose port is taken from now on, and answers once it is started.

    Args:
        address: host:port; port 0 is any.
        certificate: PEM file of what it proves itself with, and its chain. None: nothing is encrypted.
        key: PEM file of the key of that certificate.
        shares_port: Whether other processes may listen on the same port; the system then spreads connections over them.

    Attributes:
        address: With the port that the system chose.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        shares_port: bool = False,
    ) -> None:
        self._config = uvicorn.Config(
            _failing_well(app),
            loop="uvloop",
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # What it has to tell is of clients. Failures of the app are logged here.
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=_HEADERS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            backlog=_BACKLOG,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        # Now, and not on the thread: it reads the certificate.
        self._config.load()
        self._server = _Server(self._config)
        self._socket = (join_port if shares_port else hold_port)(address)
        self.address = f"{address.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        # uvicorn leaves signals to the main thread, where it does not run.
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name=f"web {self.address}", daemon=True
        )

    def start(self) -> None:
        """Serve.

        Raises:
            OSError: somebody else listens there.
        """
        # Connections that this side has closed linger. They are not to keep the next start from the port.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Here, so that who comes before the thread is there waits.
        self._socket.listen(_BACKLOG)
        self._thread.start()

    async def stop(self, grace: int) -> None:
        """Stop: no more is taken, idle connections end, and what is under way has `grace` seconds to."""
        if not self._thread.ident:
            self._socket.close()
            return
        self._config.timeout_graceful_shutdown = grace
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join, grace + _END_SECONDS)


class _Server(uvicorn.Server):
    """Lets connections in by itself: uvicorn learns of one when its handshake is over, for which it has a minute."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        connect = functools.partial(
            _Connection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        # It closes them, and waits until they are.
        self.servers: list[Any] = [_Door(listening, self.config.ssl, connect) for listening in sockets or ()]
        self.started = True


class _Door:
    """Accepts connections while there are places. Each has one from then on, its handshake included, until it ends.

    Args:
        certificate: What handshakes are made with. None: nothing is encrypted.
        connect: Makes what is to serve a connection.
    """

    def __init__(
        self, listening: socket.socket, certificate: ssl.SSLContext | None, connect: Callable[[], _Connection]
    ) -> None:
        self._listening = listening
        self._certificate = certificate
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._peers: Counter[bytes] = Counter()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._open()

    def close(self) -> None:
        """Let nobody in, nor those who are at their handshake."""
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()
        for task, connection in self._connections.items():
            if not connection.is_made:
                task.cancel()

    async def wait_closed(self) -> None:
        pass

    def _open(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            accepted, address = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # The client is gone again, or another process that shares the port was first.
            return
        except OSError as failure:
            # Who waits there would be tried again and again.
            self._loop.remove_reader(self._listening)
            self._pause = self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._open)
            log.error("no connection can be accepted", errno=failure.errno, error=failure.strerror)
            return
        accepted.setblocking(False)
        peer = _peer(address[0])
        if len(self._connections) >= _MOST_CONNECTIONS:
            self._refuse(accepted, _TOO_MANY)
        elif self._peers[peer] >= _MOST_OF_ONE_PEER:
            self._refuse(accepted, _TOO_MANY_OF_ONE)
        else:
            connection = self._connect()
            task = self._loop.create_task(self._hold(accepted, connection))
            self._connections[task] = connection
            self._peers[peer] += 1
            task.add_done_callback(functools.partial(self._leave, peer))

    async def _hold(self, accepted: socket.socket, connection: _Connection) -> None:
        longest = None if self._certificate is None else _LONGEST_HANDSHAKE_SECONDS
        # The handshake fails, or the client has gone.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._certificate,
                ssl_handshake_timeout=longest,
                ssl_shutdown_timeout=longest,
            )
            await connection.ended.wait()

    def _leave(self, peer: bytes, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def _refuse(self, accepted: socket.socket, answer: bytes) -> None:
        with accepted, suppress(OSError):
            # A handshake would cost more than what is refused.
            if self._certificate is None:
                accepted.send(answer)
                # The system may take the answer back if there is a request that nobody has read.
                accepted.recv(_LARGEST_HEAD)


def _peer(host: str) -> bytes:
    """Whom an address belongs to: of IPv6, one client has all that begin with the same 64 bits."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed
    mapped = address.ipv4_mapped
    return address.packed[:8] if mapped is None else mapped.packed


class _Connection(H11Protocol):
    """A connection that nobody holds by being slow: uvicorn itself bounds only the time between two requests.

    What an app sends at once is one piece, whatever its size.

    Attributes:
        is_made: Whether it was ready for a request once.
        ended: Set when it is no longer.
    """

    _end: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_made = False
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.is_made = True
        transport.set_write_buffer_limits(_PIECE_BYTES)
        self._give(_LONGEST_REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self.ended.set()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        # A piece was taken, if the connection has not just ended.
        if not self.transport.is_closing():
            self._give(_LONGEST_PIECE_SECONDS)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            # A request has come.
            self._give(_LONGEST_PIECE_SECONDS)

    def on_response_complete(self) -> None:
        # All of the answer is written, and the last of it may have to wait here until the client takes it.
        waiting = self.transport.get_write_buffer_size()
        self._give(_LONGEST_PIECE_SECONDS if waiting else _LONGEST_REQUEST_SECONDS)
        # The next request may have come already: it is given its time.
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_NO_HTTP)
            self.transport.close()
        else:
            # In the middle of an answer no other can begin.
            self.transport.abort()

    def _give(self, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = self.loop.call_later(seconds, self.transport.abort)


def _answer(status: str, sentence: str) -> bytes:
    """A whole answer, for those that no app is asked for."""
    head = (
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(sentence)}",
        "Connection: close",
        *(": ".join(header) for header in (_NOT_KEPT, *_HEADERS)),
    )
    return "\r\n".join((*head, "", sentence)).encode()


_TOO_MANY = _answer("503 Service Unavailable", "Too many clients are connected. Try again later.\n")
_TOO_MANY_OF_ONE = _answer(
    "503 Service Unavailable", "Too many connections come from your address. Close some, or try again later.\n"
)
_FAILED = "This failed, and not for a reason of yours. Try again later.\n"
_NO_HTTP = _answer("400 Bad Request", "This is no HTTP request that can be understood.\n")


def _failing_well(app: ASGIApp) -> ASGIApp:
    """An app whose exceptions are logged, and told to nobody else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, begin)
        except Exception as failure:
            # Neither the path nor what the exception says of it: who knows an address may fetch what is there.
            log.error(
                "request failed",
                failure=type(failure).__name__,
                errno=getattr(failure, "errno", None),
                at=[f"{frame.f_code.co_name}:{line}" for frame, line in traceback.walk_tb(failure.__traceback__)],
            )
            if begun:
                # uvicorn ends the connection.
                raise
            await PlainTextResponse(_FAILED, 500, dict([_NOT_KEPT]))(scope, receive, send)

    return answer

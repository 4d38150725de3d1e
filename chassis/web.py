"""An HTTP server beside that of gRPC, for what everybody may fetch: on a thread, and an event loop, of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from chassis import logs
from chassis.server import hold_port, join_port

# Each takes a file descriptor, and a second while it gets a file. Many systems give a process 1,024.
_MOST_CONNECTIONS = 250
_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 5
# For a request to come whole, and for an answer to be taken.
_LONGEST_REQUEST_SECONDS = 10.0
_LONGEST_ANSWER_SECONDS = 120.0
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
        self._server = uvicorn.Server(self._config)
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


class _Connection(H11Protocol):
    """A connection that nobody holds by being slow: uvicorn itself bounds only the time between two requests."""

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self._refuse(_TOO_MANY)
        else:
            self._give(_LONGEST_REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            # A request has come.
            self._give(_LONGEST_ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        # All of the answer is written, and the last of it may have to wait here until the client takes it.
        waiting = self.transport.get_write_buffer_size()
        self._give(_LONGEST_ANSWER_SECONDS if waiting else _LONGEST_REQUEST_SECONDS)
        # The next request may have come already: it is given its time.
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(_NO_HTTP)
        else:
            # In the middle of an answer no other can begin.
            self.transport.abort()

    def _give(self, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = self.loop.call_later(seconds, self.transport.abort)

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()


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
        except Exception:
            log.error("request failed", path=scope["path"], exc_info=True)
            if begun:
                # uvicorn ends the connection.
                raise
            await PlainTextResponse(_FAILED, 500, dict([_NOT_KEPT]))(scope, receive, send)

    return answer

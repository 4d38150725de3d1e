"""HTTP in tests, over sockets: what no HTTP library would send, too."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_TIMEOUT_SECONDS = 30


class Answer(NamedTuple):
    """An answer; the names of its headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection to an HTTP server."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._came = bytearray()

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request as it is, with headers such as If_None_Match, and wait for the answer."""
        self.send(path, method, **headers)
        return self.answer(has_body=method != "HEAD")

    def send(self, path: str, method: str = "GET", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: images.example"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def answer(self, *, has_body: bool = True, pause: float = 0) -> Answer:
        """The next answer.

        Args:
            pause: Seconds to wait before each 64 KB of the body.

        Raises:
            EOFError: the server ended the connection before its end.
        """
        while b"\r\n\r\n" not in self._came:
            self._more()
        head, _, self._came = self._came.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(headers) == len(lines), f"a header comes twice: {lines}"
        status = int(first.split()[1])
        length = int(headers["content-length"]) if has_body and status != 304 else 0
        while len(self._came) < length:
            time.sleep(pause)
            self._more()
        body, self._came = bytes(self._came[:length]), self._came[length:]
        return Answer(status, headers, body)

    def put_back(self, read: bytes) -> None:
        """What was read of the next answer."""
        self._came[:0] = read

    def has_ended(self) -> bool:
        """Wait for the server to send something, or to end the connection."""
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        try:
            more = self.socket.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            raise EOFError(self._came)
        self._came += more


@contextmanager
def connected(address: str, trusting: ssl.SSLContext | None = None, name: str = "") -> Iterator[Connection]:
    """A connection to host:port.

    Args:
        trusting: Speak TLS, and whom to trust.
        name: Whose certificate is asked for then.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), _TIMEOUT_SECONDS) as plain:
        if trusting is None:
            yield Connection(plain)
            return
        with trusting.wrap_socket(plain, server_hostname=name) as encrypted:
            yield Connection(encrypted)


def ask(address: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask once, over a connection of its own."""
    with connected(address) as connection:
        return connection.ask(path, method, **headers)

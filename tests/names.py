"""A name server on loopback, for what gRPC resolves: `dns://ADDRESS/NAME:PORT`. It knows IPv4 addresses only."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager

_ADDRESS, _INTERNET = 1, 1
_ANSWER, _NO_SUCH_NAME = 0x8400, 0x8403
_HEADER_BYTES = 12
_DATAGRAM_BYTES = 512


class Names:
    """What a name server knows.

    Attributes:
        address: host:port of the server.
        known: The addresses of each name, which may change at any time; no answer is to be kept.
        asked: How often it was asked for addresses.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.known: MutableMapping[str, Sequence[str]] = {}
        self.asked = 0

    def target(self, name: str, port: int) -> str:
        """What gRPC resolves here."""
        return f"dns://{self.address}/{name}:{port}"

    def answer(self, query: bytes) -> bytes:
        """The answer to a question (RFC 1035, 4)."""
        end = query.index(0, _HEADER_BYTES)
        labels, at = [], _HEADER_BYTES
        while at < end:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        found = self.known.get(".".join(labels))
        (kind,) = struct.unpack_from("!H", query, end + 1)
        self.asked += kind == _ADDRESS
        addresses = [] if found is None or kind != _ADDRESS else found
        flags = _NO_SUCH_NAME if found is None else _ANSWER
        header = struct.pack("!2s5H", query[:2], flags, 1, len(addresses), 0, 0)
        # The name is a pointer to that in the question.
        records = (
            struct.pack("!3HIH", 0xC000 | _HEADER_BYTES, _ADDRESS, _INTERNET, 0, 4) + socket.inet_aton(address)
            for address in addresses
        )
        return header + query[_HEADER_BYTES : end + 5] + b"".join(records)


@contextmanager
def served() -> Iterator[Names]:
    """Serve names, on a thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        host, port = listener.getsockname()
        names = Names(f"{host}:{port}")

        def serve() -> None:
            while True:
                query, asker = listener.recvfrom(_DATAGRAM_BYTES)
                if not query:
                    return
                listener.sendto(names.answer(query), asker)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield names
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", (host, port))
            thread.join()

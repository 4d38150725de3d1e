"""As much of HTTP/1.1 as it takes to call a JSON API over connections that stay open: requests of bytes that are made
once, so that the generator costs less than the server."""

from __future__ import annotations

import asyncio

_HEAD_END = b"\r\n\r\n"


class Connections:
    """Connections to one server, as many as there are calls at a time.

    Args:
        address: host:port.
        timeout: Seconds that a call may take.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def request(self, method: str, body: bytes, authorization: str) -> bytes:
        """The bytes of a request.

        Args:
            method: Verb and path, "GET /posts/7".
            body: JSON, or nothing.
        """
        lines = [f"{method} HTTP/1.1", f"Host: {self._address}", "Accept: application/json"]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        if body or not method.startswith("GET"):
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + _HEAD_END + body

    async def open(self, count: int) -> None:
        """Have at least so many connections."""
        self._idle += [await self._connect() for _ in range(count - len(self._idle))]

    async def make(self, request: bytes) -> tuple[str, bytes]:
        """Make a call: its code as `Outcome` has it, and the body of the answer."""
        writer = None
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = self._idle.pop() if self._idle else await self._connect()
                writer.write(request)
                status, answer = await _read(reader)
        except (OSError, asyncio.IncompleteReadError) as failure:
            # What comes back too late would be taken for the answer to another call.
            if writer is not None:
                writer.close()
            return ("DEADLINE_EXCEEDED" if isinstance(failure, TimeoutError) else "UNAVAILABLE"), b""
        self._idle.append((reader, writer))
        return ("OK" if 200 <= status < 300 else str(status)), answer

    def close(self) -> None:
        """Close the connections that carry no call."""
        for _, writer in self._idle:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._address.rpartition(":")
        return await asyncio.open_connection(host, int(port))


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an answer."""
    head = (await reader.readuntil(_HEAD_END)).lower()
    status = int(head[9:12])
    if b"transfer-encoding: chunked" in head:
        return status, await _read_chunks(reader)
    _, named, rest = head.partition(b"content-length:")
    return status, await reader.readexactly(int(rest.partition(b"\r\n")[0])) if named else b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)

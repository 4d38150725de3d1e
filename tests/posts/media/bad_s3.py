"""A server that is no good S3: it answers badly, slowly or never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
# Longer than any test waits.
_FOR_EVER = 1000


async def silent(_: asyncio.StreamWriter) -> None:
    """Takes a request, and never answers."""
    await asyncio.sleep(_FOR_EVER)


async def dripping(writer: asyncio.StreamWriter) -> None:
    """Sends a header that does not end, byte by byte."""
    writer.write(b"HTTP/1.1 200 OK\r\nx-drip: ")
    await _drip(writer)


async def dripping_body(writer: asyncio.StreamWriter) -> None:
    """Answers at once, and sends the body byte by byte."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await _drip(writer)


async def cut_off(writer: asyncio.StreamWriter) -> None:
    """Breaks off in the middle of the body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n<half")


async def garbled(writer: asyncio.StreamWriter) -> None:
    """Answers with what is no XML, nor what was asked for."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<half")


def answering(status: int, code: str = "") -> Behaviour:
    """Answers each request with a status, and a code of S3."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        body = f"<Error><Code>{code}</Code><Message>of SECRETKEY</Message></Error>".encode() if code else b"<html>"
        writer.write(f"HTTP/1.1 {status} Bad\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return answer


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[str]:
    """Start one. Gives its address."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            # The body of an upload.
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1 << 20), 0.05)
            await behaviour(writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)

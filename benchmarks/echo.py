"""A bare grpc.aio server on uvloop, the limit of what a gRPC server in Python can do: `python -m benchmarks.echo SIZE`.

Answers every call with as many bytes, neither reading nor making messages. Writes its host:port to standard output, and
serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/benchmarks.Echo/Echo"


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, size: int) -> None:
        answer = b"\0" * size

        async def echo(request: bytes, context: Any) -> bytes:
            return answer

        self._handler: Any = grpc.unary_unary_rpc_method_handler(echo)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handler


async def _serve(size: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Handlers(size)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    await stopping.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))

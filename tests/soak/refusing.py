"""A server that refuses every call, as one does that has too many: `python -m tests.soak.refusing`.

Writes its host:port to standard output, and serves until standard input is closed.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from tests.chassis import peers
from tests.chassis.issuer import Issuer


async def _serve() -> None:
    # However short calls wait: it is too long.
    async with peers.running("remote", Issuer(), max_calls=1000, longest_wait=-1) as peer:
        sys.stdout.write(f"{peer.address}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())

"""What processes hold of the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
_THREADS = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)


class Resources(NamedTuple):
    """Bytes of memory that are resident, and how many threads and open file descriptors there are."""

    memory: int
    threads: int
    descriptors: int


def resources(pids: Iterable[int]) -> Resources:
    """What processes hold at the moment, all together."""
    memory = threads = descriptors = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        memory += 1024 * int(_RESIDENT.findall(status)[0])
        threads += int(_THREADS.findall(status)[0])
        descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    return Resources(memory, threads, descriptors)

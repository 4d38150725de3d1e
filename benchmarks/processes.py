"""What processes use of the machine, as the operating system counts it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError)


def tree(pid: int) -> list[int]:
    """A process and all that it started, and these in turn, as far as they live."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(*_GONE):
                children.setdefault(int(_fields(int(name))[1]), []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor, all its threads together."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK


def ended_seconds(pid: int) -> float:
    """What the processes that a process had started, and that have ended, had used of the processor."""
    fields = _fields(pid)
    return (int(fields[13]) + int(fields[14])) * _TICK


def living_seconds(pid: int) -> dict[int, float]:
    """What a process and all that it started have used of the processor, each that lives."""
    used = {}
    for each in tree(pid):
        with suppress(*_GONE):
            used[each] = cpu_seconds(each)
    return used


def title(pid: int) -> str:
    """What a process calls itself: its command line, or what it put in its place. Empty: it is gone."""
    with suppress(*_GONE):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def disk_seconds(core: int) -> float:
    """How long a core had nothing to do until a disk would be done."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return int(ticks[4]) * _TICK
    raise LookupError(f"there is no core {core}")


def rss_bytes(pid: int) -> int:
    """How much of a process is in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        # One may just have ended.
        with suppress(*_GONE):
            os.sched_setaffinity(int(thread), {core})


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat those behind the name, which may hold anything: the state is the first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

"""What a long test measured, for who runs it."""

from __future__ import annotations

import os
import sys


def tell(line: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def machine() -> str:
    """How busy the machine is: figures of a busy one say less."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"

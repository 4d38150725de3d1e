"""What `insta demo` tells on the terminal: how far it is, and how fast it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich import box
from rich.console import Console
from rich.table import Table

from suite.progress import advancing


class Report:
    """Tells how far it is, and in the end what was made."""

    def __init__(self) -> None:
        self._console = Console()
        self._table = Table(box=box.SIMPLE)
        self._table.add_column("made")
        for heading in ("rows", "seconds", "rows/s"):
            self._table.add_column(heading, justify="right")

    @contextmanager
    def phase(self, name: str, rows: int) -> Iterator[Callable[[int], None]]:
        """The rows of one kind are made; call what it gives with each number of new ones."""
        begun = time.perf_counter()
        with advancing(self._console, name, rows) as advance:
            yield advance
        seconds = time.perf_counter() - begun
        if not self._console.is_terminal:
            click.echo(f"{name}: {rows:,} in {seconds:.1f} s")
        self._table.add_row(name, f"{rows:,}", f"{seconds:.1f}", f"{rows / seconds:,.0f}")

    def show(self) -> None:
        self._console.print(self._table)

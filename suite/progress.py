"""How far something is that takes its time, as a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def advancing(console: Console, name: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Something is done with so many rows; call what it gives with each number of those that are done."""
    if not console.is_terminal:
        yield lambda count: None
        return
    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield partial(bar.advance, bar.add_task(name, total=rows))

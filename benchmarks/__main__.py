"""Measures the suite, and shows what it found: `python -m benchmarks`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence

import click
from rich.console import Console

from benchmarks import calls, capacity, disk, media, mix, postgresql, report, scale
from benchmarks.options import Options
from benchmarks.report import Part
from benchmarks.sides import LOAD_CORE

PARTS: Mapping[str, Callable[[Options, Console], Part]] = {
    calls.NAME: calls.run,
    mix.NAME: mix.run,
    scale.NAME: scale.run,
    disk.NAME: disk.run,
    media.NAME: media.run,
    postgresql.NAME: postgresql.run,
    capacity.NAME: capacity.run,
}


# The load of a machine that does nothing else.
_QUIET = 0.5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, metavar="[PART]...", type=click.Choice(list(PARTS)))
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Medians are taken of so many.")
@click.option("--seconds", type=click.FloatRange(0.2), default=4.0, show_default=True, help="How long each load runs.")
def main(parts: Sequence[str], rounds: int, seconds: float) -> None:
    """Measure the parts of the benchmark that are named; by default all.

    calls: each call together, with two workers and apart, against a bare echo and Django REST framework.
    scale: the same calls in networks of 10 thousand and 1 million posts, and up to 10 million likes.
    disk: durable writes where each sync takes 2 ms.
    media: uploads and downloads of images, and what they do to other calls.
    postgresql: each call together, against Django REST framework, with the databases of both on one PostgreSQL server.
    capacity: the capacity model of docs/scale.md, with what it says of a mix of calls beside what is measured of it.
    mix: feeds, timelines and new posts as DeathStarBench mixes them; the best rate with 99 of 100 calls in 20 ms.

    Takes two cores, one for the servers and one for the load, and a machine that does nothing else.
    """
    if (os.cpu_count() or 1) < 2:
        raise click.ClickException("the load needs a core of its own: this machine has one")
    if importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException("matplotlib is missing, which draws the pictures: `make bench` installs it")
    # This process looks at the clock, and is not to be in the way of the servers.
    os.sched_setaffinity(0, {LOAD_CORE})
    options = Options(rounds, seconds)
    console = Console()
    load_before = os.getloadavg()[0]
    if load_before > _QUIET:
        console.print(f"The machine is busy (load {load_before:.1f}): many figures will not count.", style="yellow")
    for name in parts or PARTS:
        part = PARTS[name](options, console)
        figures = report.save(part, {"rounds": rounds, "seconds": seconds, "load_before": load_before})
        report.show(part, console)
        console.print(f"\nThe picture is {report.draw(part)}, all figures are in {figures}.", highlight=False)


if __name__ == "__main__":
    main()

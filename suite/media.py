"""`insta media`: images, from a terminal."""

from __future__ import annotations

import click

from suite.media_gc import gc


@click.group()
def media() -> None:
    """Upload images, and clean the store that they are in."""


media.add_command(gc)

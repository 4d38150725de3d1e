"""`insta media`: images, from a terminal."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import grpc
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from chassis.settings import Settings
from insta.gateway.v1 import media_pb2, media_pb2_grpc
from services.posts.media.containers import Format, format_of
from suite import client, failures
from suite.client import Target
from suite.media_gc import gc

# The most that the contract takes.
_CHUNK_BYTES = 64 * 1024
# Of less no progress is shown.
_LONG_BYTES = 1 << 20
_ENDINGS = {
    ".jpg": Format.JPEG,
    ".jpeg": Format.JPEG,
    ".png": Format.PNG,
    ".webp": Format.WEBP,
    ".avif": Format.AVIF,
    ".gif": Format.GIF,
}


@click.group()
def media() -> None:
    """Upload and download images, and clean the store that they are in."""


media.add_command(gc)

_timeout = click.option(
    "--timeout",
    type=click.FloatRange(0.01),
    metavar="SECONDS",
    default=120.0,
    show_default=True,
    help="How long to wait.",
)


@media.command(short_help="Upload an image.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--alt", metavar="TEXT", default="", help="What is to be seen, for those who cannot see it.")
@client.as_user
@client.token
@client.address
@client.trusted
@_timeout
@click.pass_obj
def upload(
    settings: Settings,
    file: Path,
    alt: str,
    user: str | None,
    token: str | None,
    address: str,
    authorities: Path | None,
    timeout: float,
) -> None:
    """Upload the image in FILE (JPEG, PNG, WebP, AVIF or GIF, up to 20 MiB) to a running suite.

    \b
      insta media upload beach.jpg --alt 'A beach at dawn' --as ana
      insta call PostService.CreatePost title='First light' media_ids=1 --as ana

    Neither a post nor an avatar shows it yet: unless one does, it is deleted after a day.
    """
    try:
        data = file.read_bytes()
    except OSError as failure:
        raise click.ClickException(f"cannot read {file}: {failure.strerror}.") from None
    image_format = format_of(data) or _ENDINGS.get(file.suffix.lower())
    if image_format is None:
        raise click.ClickException(f"{file} is no image that is taken: JPEG, PNG, WebP, AVIF or GIF.")
    header = media_pb2.UploadHeader(
        content_type=image_format.content_type, size=len(data), alt_text=alt, sha256=hashlib.sha256(data).digest()
    )
    metadata = client.metadata(settings, token, user)
    target = client.target(settings, address, authorities)
    with _calling(target) as stub, _progress(len(data)) as progress:
        parts = _parts(header, data, progress)
        uploaded = stub.UploadMedia(parts, metadata=metadata, timeout=timeout).media
    _print(uploaded)


@media.command(short_help="Download an image.")
@click.argument("media_id", metavar="ID", type=click.IntRange(1))
@click.option(
    "-o", "--output", metavar="FILE", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Where to."
)
@click.option("--width", type=click.IntRange(0), metavar="N", default=0, help="At most so many pixels wide.")
@click.option(
    "--type", "kind", type=click.Choice(["webp", "jpeg"]), default="webp", show_default=True, help="The format."
)
@client.as_user
@client.token
@client.address
@client.trusted
@_timeout
@click.pass_obj
def download(
    settings: Settings,
    media_id: int,
    output: Path,
    width: int,
    kind: str,
    user: str | None,
    token: str | None,
    address: str,
    authorities: Path | None,
    timeout: float,
) -> None:
    """Download the image with this ID from a running suite to FILE, in place of what may be there.

    \b
      insta media download 1 -o beach.webp --width 640 --as ana
    """
    metadata = client.metadata(settings, token, user)
    target = client.target(settings, address, authorities)
    request = media_pb2.DownloadMediaRequest(media_id=media_id, max_width=width, content_type=f"image/{kind}")
    with _calling(target) as stub:
        first, *rest = stub.DownloadMedia(request, metadata=metadata, timeout=timeout)
    try:
        size = output.write_bytes(b"".join(part.chunk for part in rest))
    except OSError as failure:
        raise click.ClickException(f"cannot write {output}: {failure.strerror}.") from None
    click.echo(
        f"{output}: {first.variant.content_type}, {first.variant.width} x {first.variant.height}, {size:,} bytes"
    )


@contextmanager
def _calling(target: Target) -> Iterator[Any]:
    """A server's stub. A call within that fails is told, and ends the command."""
    with target.channel() as opened:
        # The types of the stubs are those of grpc.aio.
        channel: Any = opened
        try:
            yield media_pb2_grpc.MediaServiceStub(channel)
        except grpc.RpcError as error:
            click.echo(failures.told(target.address, error), err=True)
            sys.exit(1)


@contextmanager
def _progress(size: int) -> Iterator[Progress]:
    """Shows how far an upload is, to somebody who sits there, if it takes long."""
    columns = ("uploading", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=size < _LONG_BYTES or not console.is_terminal
    ) as it:
        yield it


def _parts(header: media_pb2.UploadHeader, data: bytes, progress: Progress) -> Iterator[media_pb2.UploadMediaRequest]:
    """The messages of an upload."""
    yield media_pb2.UploadMediaRequest(header=header)
    task = progress.add_task("", total=len(data))
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        yield media_pb2.UploadMediaRequest(chunk=chunk)
        progress.advance(task, len(chunk))


def _print(uploaded: media_pb2.Media) -> None:
    click.echo(f"image {uploaded.id}: {uploaded.content_type}, {uploaded.width} x {uploaded.height}")
    # No padding: an address may be longer than a line, and is to be copied.
    click.echo(f"\n  {'pixels':>11}  {'type':10}  {'bytes':>9}  address")
    for variant in uploaded.variants:
        pixels = f"{variant.width} x {variant.height}"
        click.echo(f"  {pixels:>11}  {variant.content_type:10}  {variant.size:>9,}  {variant.url}")
    if uploaded.HasField("url_expire_time"):
        click.echo(f"\nThe addresses are good until {uploaded.url_expire_time.ToDatetime():%Y-%m-%d %H:%M} UTC.")

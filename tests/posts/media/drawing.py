"""Images for tests, drawn when they are needed."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
}
FORMATS = tuple(CONTENT_TYPES)
# Of the quarters, in the order in which one reads.
COLOURS = ((200, 30, 30), (30, 160, 30), (30, 30, 200), (220, 200, 40))


def picture(width: int, height: int) -> Image.Image:
    """Four quarters, each of a colour of its own."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(COLOURS):
        left, top = index % 2 * width // 2, index // 2 * height // 2
        draw.rectangle((left, top, left + width // 2, top + height // 2), fill=colour)
    return image


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """The image as a file."""
    if format_name == "AVIF":
        options = {"speed": 10, "max_threads": 1, **options}
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    """A file as an image."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def near(colour: Any, expected: tuple[int, ...], by: int = 24) -> bool:
    """Whether a colour is about the expected one: what encoders lose aside."""
    return all(abs(a - b) <= by for a, b in zip(colour, expected, strict=True))


def quarters(image: Image.Image) -> list[Any]:
    """The colour in the middle of each quarter."""
    width, height = image.size
    rgb = image.convert("RGB")
    return [rgb.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(data: bytes, *chunks: bytes) -> bytes:
    """A PNG file with more chunks after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(data: bytes, *segments: bytes) -> bytes:
    """A JPEG file with more segments at its start."""
    return data[:2] + b"".join(segments) + data[2:]

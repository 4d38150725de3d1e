"""What is known of an image before a decoder sees it: its format, its size, and the bytes that its pixels take.

Decoders reserve memory for as many pixels as a file claims to have, some already when they open it; so the claim is
read here first. And they parse metadata, which they warn of through `warnings`, one setting for all threads; so they
are given a copy without.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from services.posts.media import avif
from services.posts.media.refusal import ImageRefused, Reason, damaged

MAX_PIXELS = 25_000_000
# A progressive JPEG has about ten. Each takes a pass over all pixels, and may be a few bytes long: five hundred of the
# largest image took eight seconds.
MAX_SCANS = 50


class Format(Enum):
    """The formats that are taken."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    WEBP = "image/webp"
    AVIF = "image/avif"
    GIF = "image/gif"

    @property
    def content_type(self) -> str:
        return self.value

    @property
    def label(self) -> str:
        """As people write it."""
        return "WebP" if self is Format.WEBP else self.name


class Contained(NamedTuple):
    """What a file contains.

    Attributes:
        data: What a decoder needs of it.
        width, height: As stored, not as it is to be looked at. Of an AVIF file zero: its decoder tells, and needs no
            memory for it.
        exif, profile: Empty if there is none, and of a format whose decoder hands it out unread.
    """

    data: bytes
    width: int
    height: int
    exif: bytes = b""
    profile: bytes = b""


def format_of(data: bytes) -> Format | None:
    """The format as the first bytes tell it."""
    if data.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if data.startswith(_PNG_SIGNATURE):
        return Format.PNG
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Format.GIF
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return Format.WEBP
    return Format.AVIF if avif.is_avif(data) else None


def contained(data: bytes, image_format: Format) -> Contained:
    """What the file contains. It is refused if it ends too early, or has too many pixels."""
    try:
        found = _READERS[image_format](data)
    except (struct.error, IndexError, ValueError):
        raise damaged(image_format.label) from None
    if image_format is not Format.AVIF:
        check_size(found.width, found.height, image_format)
    return found


def check_size(width: int, height: int, image_format: Format) -> None:
    """Refuse an image without pixels, or with too many."""
    if width < 1 or height < 1:
        raise damaged(image_format.label)
    if width * height > MAX_PIXELS:
        raise too_many_pixels(f"{width:,} x {height:,}")


def too_many_pixels(size: str) -> ImageRefused:
    """An image of that size is not decoded."""
    return ImageRefused(
        Reason.TOO_MANY_PIXELS,
        f"The image has {size} pixels; at most {MAX_PIXELS // 1_000_000} million are taken: make it smaller.",
    )


# JPEG: segments up to the start of the first scan; what follows is entropy-coded, and tables between the scans.
_SOI = b"\xff\xd8"
_SOS = 0xDA
# Start of frame, of any coding process.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_JFIF, _EXIF_OR_XMP, _ICC, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
# The decoder derives from JFIF and Adobe segments how colours are coded.
_NEEDED = _SOF | _TABLES | {_JFIF, _ADOBE, _SOS}


def _jpeg(data: bytes) -> Contained:
    parts, size, exif = [_SOI], None, b""
    for marker, segment in _segments(data):
        body = segment[4:]
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", body, 1)
            size = width, height
        elif marker == _EXIF_OR_XMP and body.startswith(b"Exif\0\0"):
            exif = exif or body
        if marker in _NEEDED or _is_icc(marker, body):
            parts.append(segment)
    if size is None:
        raise ValueError("no frame")
    _check_scans(parts[-1])
    return Contained(b"".join(parts), *size, exif)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments up to the first scan with their markers, and the scan with all that follows."""
    at = len(_SOI)
    while True:
        # Bytes in between, and how often a marker's first byte is repeated, mean nothing.
        at = data.index(0xFF, at)
        marker = data[at + 1]
        if marker == _SOS:
            yield marker, data[at:]
            return
        if marker in (0x00, 0xFF):
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, _slice(data, at, 2 + length)
        at += 2 + length


def _is_icc(marker: int, body: bytes) -> bool:
    """A part of a profile, with its number and how many there are."""
    return marker == _ICC and body.startswith(b"ICC_PROFILE\0") and len(body) >= 14


def _check_scans(scans: bytes) -> None:
    """Refuse what takes too many passes. In what is entropy-coded, the marker cannot occur."""
    if scans.count(bytes((0xFF, _SOS))) > MAX_SCANS:
        raise ImageRefused(
            Reason.TOO_MANY_SCANS,
            f"The JPEG file has more than {MAX_SCANS} scans: save the image as a baseline JPEG.",
        )


# PNG: chunks.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_PROFILE = 4_000_000
_PNG_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def _png(data: bytes) -> Contained:
    parts, exif, profile = [_PNG_SIGNATURE], b"", b""
    if data[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height = struct.unpack_from(">II", data, 16)
    at, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = _slice(data, at, length + 12)
        if kind == b"IHDR" and len(parts) > 1:
            raise ValueError("two headers")
        if kind in _PNG_NEEDED:
            parts.append(chunk)
        elif kind == b"eXIf":
            exif = exif or chunk[8:-4]
        elif kind == b"iCCP":
            profile = profile or _inflated_profile(chunk[8:-4])
        at += len(chunk)
    return Contained(b"".join(parts), width, height, exif, profile)


def _inflated_profile(body: bytes) -> bytes:
    """The profile behind its name, as much of it as any has; empty if it cannot be inflated."""
    _, _, compressed = body.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(compressed[1:], _MAX_PROFILE)
    except zlib.error:
        return b""


# GIF: blocks. The first frame may reach beyond the screen, and decoders then make room for it.
_TABLE_FOLLOWS = 0x80
_GRAPHIC_CONTROL = 0xF9


def _gif(data: bytes) -> Contained:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _table_bytes(flags)
    parts = [_slice(data, 0, at)]
    while data[at] == ord("!"):
        end = _after_blocks(data, at + 2)
        if data[at + 1] == _GRAPHIC_CONTROL:
            parts.append(_slice(data, at, end - at))
        at = end
    if data[at] != ord(","):
        raise ValueError("no frame")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    end = _after_blocks(data, at + 10 + _table_bytes(flags) + 1)
    parts += [_slice(data, at, end - at), b";"]
    return Contained(b"".join(parts), max(width, left + frame_width), max(height, top + frame_height))


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 0x07) + 1) if flags & _TABLE_FOLLOWS else 0


def _after_blocks(data: bytes, at: int) -> int:
    """Where the blocks that start there end, each after its length, the last with length 0."""
    while data[at]:
        at += 1 + data[at]
    return at + 1


# WebP: chunks, of which the first holds the size.
def _webp(data: bytes) -> Contained:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(_slice(data, 24, 3), "little") + 1
        height = int.from_bytes(_slice(data, 27, 3), "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("no size")
    return Contained(data, width, height)


# AVIF: transparency is an image of its own, and of a grid of images the last ones may reach beyond its edges.
_AVIF_LAYERS = 3


def _avif(data: bytes) -> Contained:
    if avif.is_sequence(data):
        raise ImageRefused(Reason.ANIMATED, "The AVIF file is a sequence of images: upload one of them.")
    pixels = avif.coded(data)
    if pixels.largest > MAX_PIXELS or pixels.total > _AVIF_LAYERS * MAX_PIXELS:
        raise too_many_pixels("too many")
    return Contained(avif.without_metadata(data), 0, 0)


def _slice(data: bytes, at: int, length: int) -> bytes:
    """Exactly so many bytes."""
    found = data[at : at + length]
    if len(found) != length:
        raise ValueError("too short")
    return found


_READERS: dict[Format, Callable[[bytes], Contained]] = {
    Format.JPEG: _jpeg,
    Format.PNG: _png,
    Format.WEBP: _webp,
    Format.AVIF: _avif,
    Format.GIF: _gif,
}

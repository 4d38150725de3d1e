"""What a workshop and its workers say to each other: headers in JSON, each followed by the bytes that it announces.

A worker decodes files of anybody. So what it says is checked like whatever comes from outside: how long it is before
it is read, and then each field.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from services.posts.media.containers import MAX_PIXELS, Format, format_of
from services.posts.media.images import WIDTHS, Processed, Variant
from services.posts.media.refusal import ImageRefused, Reason

# Answers exactly as many bytes as it is asked for, or raises.
Read = Callable[[int], bytes]

# What a worker says first.
READY = b"\n"
_LENGTH = struct.Struct(">I")
_MAX_HEADER = 4096
# Longer than any content type that is taken.
_MAX_DECLARED = 100
_MAX_TEXT = 500
# What a file has beside its pixels.
_MAX_OVERHEAD = 4096
_BLURHASH = re.compile(r"[0-9A-Za-z#$%*+,\-.:;=?@\[\]^_{|}~]{6,100}")
_VARIANT_FORMATS = (Format.WEBP, Format.JPEG)


class Malformed(Exception):
    """A worker has said what no worker says."""


class Request(NamedTuple):
    data: bytes
    declared: str


class _Announced(NamedTuple):
    """A variant whose bytes follow the header."""

    width: int
    height: int
    format: Format
    length: int


def request_header(length: int, declared: str) -> bytes:
    """What is sent before the data of an image."""
    return _header({"declared": declared[:_MAX_DECLARED], "length": length})


def read_request(read: Read) -> Request:
    header = json.loads(_header_bytes(read))
    return Request(read(header["length"]), header["declared"])


def made(processed: Processed) -> bytes:
    """The answer to an image that was taken."""
    fields = {
        "width": processed.width,
        "height": processed.height,
        "blurhash": processed.blurhash,
        "variants": [[v.width, v.height, v.content_type, len(v.data)] for v in processed.variants],
    }
    return b"".join([_header(fields), *(variant.data for variant in processed.variants)])


def refused(refusal: ImageRefused) -> bytes:
    """The answer to an image that was not."""
    return _header({"reason": refusal.reason.value, "text": refusal.text})


def out_of_memory() -> bytes:
    """The answer to an image that needs more memory than a worker has."""
    return _header({"failed": "memory"})


def read_answer(read: Read) -> Processed:
    """What a worker has made of an image.

    Raises:
        ImageRefused: It is not taken.
        MemoryError: It needs more memory than a worker has.
        Malformed: That was no answer.
    """
    try:
        header = json.loads(_header_bytes(read))
    except (ValueError, RecursionError):
        raise Malformed("a header that is no JSON") from None
    match header:
        case {"width": width, "height": height, "blurhash": blurhash, "variants": variants, **more} if not more:
            return _processed(width, height, blurhash, variants, read)
        case {"reason": reason, "text": text, **more} if not more:
            raise _refusal(reason, text)
        case {"failed": "memory", **more} if not more:
            raise MemoryError
    raise Malformed("a header of no known kind")


def _header(fields: dict[str, Any]) -> bytes:
    header = json.dumps(fields).encode()
    return _LENGTH.pack(len(header)) + header


def _header_bytes(read: Read) -> bytes:
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    if length > _MAX_HEADER:
        raise Malformed("a header that is too long")
    return read(length)


def _processed(width: Any, height: Any, blurhash: Any, variants: Any, read: Read) -> Processed:
    _check_number(width, MAX_PIXELS)
    _check_number(height, MAX_PIXELS)
    if width * height > MAX_PIXELS:
        raise Malformed("too many pixels")
    if type(blurhash) is not str or not _BLURHASH.fullmatch(blurhash):
        raise Malformed("no blurhash")
    if type(variants) is not list or not 0 < len(variants) <= len(WIDTHS) * len(_VARIANT_FORMATS):
        raise Malformed("no variants, or too many")
    announced = [_announced(variant, width, height) for variant in variants]
    sizes = [(one.width, one.height) for one in announced[:: len(_VARIANT_FORMATS)]]
    expected = [(*size, image_format) for size in sorted(set(sizes)) for image_format in _VARIANT_FORMATS]
    if [one[:3] for one in announced] != expected:
        raise Malformed("variants in another order, or some that are missing")
    return Processed(width, height, blurhash, tuple(_variant(one, read) for one in announced))


def _announced(variant: Any, most_width: int, most_height: int) -> _Announced:
    match variant:
        case [width, height, str(content_type), length]:
            _check_number(width, min(most_width, WIDTHS[-1]))
            _check_number(height, most_height)
            # No more than its pixels would take as they are.
            _check_number(length, 4 * width * height + _MAX_OVERHEAD)
            for image_format in _VARIANT_FORMATS:
                if content_type == image_format.content_type:
                    return _Announced(width, height, image_format, length)
    raise Malformed("no variant")


def _variant(announced: _Announced, read: Read) -> Variant:
    data = read(announced.length)
    if format_of(data) is not announced.format:
        raise Malformed("a variant in another format")
    return Variant(announced.width, announced.height, announced.format.content_type, data)


def _refusal(reason: Any, text: Any) -> ImageRefused:
    if type(text) is not str or not text.isprintable() or not 0 < len(text) <= _MAX_TEXT:
        raise Malformed("no sentence")
    if reason not in list(Reason):
        raise Malformed("no reason")
    return ImageRefused(Reason(reason), text)


def _check_number(number: Any, most: int) -> None:
    # A bool is an int, too.
    if type(number) is not int or not 1 <= number <= most:
        raise Malformed("no number, or one out of range")

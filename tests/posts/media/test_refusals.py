"""What is refused, and what is said of it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest
from PIL import Image

from services.posts.media.images import process
from services.posts.media.refusal import ImageRefused, Reason
from tests.posts.media.drawing import (
    COLOURS,
    CONTENT_TYPES,
    FORMATS,
    encoded,
    jpeg_segment,
    near,
    opened,
    picture,
    quarters,
)


def _refused(data: bytes, declared: str) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        process(data, declared)
    error = caught.value
    # A sentence of ours, and no trace of a library's.
    assert error.text == str(error)
    assert error.text[0].isupper()
    assert error.text.endswith(".")
    assert ":" in error.text
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


@pytest.mark.parametrize("declared", [*CONTENT_TYPES.values(), "image/heic", ""])
def test_no_bytes_are_no_image(declared: str) -> None:
    assert _refused(b"", declared).reason == Reason.EMPTY


_OTHERS = {name: encoded(picture(32, 32), name) for name in ("BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000")}
_OTHERS |= {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n%%EOF\n",
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "HTML": b"<!doctype html><title>hello</title>",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "PSD": b"8BPS\0\x01" + bytes(64),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(28),
    "zeros": bytes(1000),
    "one-byte": b"\xff",
}


@pytest.mark.parametrize("data", _OTHERS.values(), ids=_OTHERS)
@pytest.mark.parametrize("declared", ["image/png", "image/tiff"])
def test_other_formats_are_refused_whatever_they_are_declared_as(data: bytes, declared: str) -> None:
    assert _refused(data, declared).reason == Reason.UNKNOWN_FORMAT


@pytest.mark.parametrize("declared", ["image/tiff", "image/svg+xml", "text/html", "image/*", "IMAGE/PNG", ""])
def test_other_content_types_are_refused(declared: str) -> None:
    error = _refused(encoded(picture(32, 32), "PNG"), declared)

    assert error.reason == Reason.UNKNOWN_FORMAT
    assert "image/png" in error.text


@pytest.mark.parametrize("declared", FORMATS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_the_declared_content_type_has_to_be_that_of_the_bytes(format_name: str, declared: str) -> None:
    data = encoded(picture(32, 32), format_name)
    if declared == format_name:
        assert process(data, CONTENT_TYPES[declared]).variants
        return

    error = _refused(data, CONTENT_TYPES[declared])

    assert error.reason == Reason.ANOTHER_FORMAT
    assert CONTENT_TYPES[declared] in error.text
    assert CONTENT_TYPES[format_name] in error.text


def _whole(format_name: str) -> bytes:
    """A file in which pixels take most of the bytes."""
    noise = Image.radial_gradient("L").resize((200, 150))
    image = Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180)))
    return encoded(image, format_name, **({"progressive": True} if format_name == "JPEG" else {}))


@pytest.mark.parametrize("format_name", FORMATS)
def test_files_that_end_too_early_are_refused(format_name: str) -> None:
    whole = _whole(format_name)
    assert process(whole, CONTENT_TYPES[format_name]).variants
    magic = {"JPEG": 3, "PNG": 8, "GIF": 6, "WEBP": 12, "AVIF": 24}[format_name]
    # Of a GIF file, the very last byte says that nothing follows.
    most = len(whole) - 2

    for length in sorted({*range(magic, 200, 7), *range(200, most, max(1, most // 60)), most - 1, most}):
        assert _refused(whole[:length], CONTENT_TYPES[format_name]).reason == Reason.DAMAGED, length


@pytest.mark.parametrize("format_name", FORMATS)
def test_damaged_files_are_refused_or_shown_and_nothing_else(format_name: str) -> None:
    whole = _whole(format_name)
    state, refused = 1, 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(4):
            # Numbers that look random, and are the same each time.
            state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
            # Half of the changes where files have their structure, none where they tell what they are.
            within = len(whole) - 12 if state >> 60 & 1 else 200
            damaged[12 + (state >> 20) % within] = state >> 50 & 0xFF
        try:
            process(bytes(damaged), CONTENT_TYPES[format_name])
        except ImageRefused:
            refused += 1

    assert refused > 5


def _page_in_gif() -> bytes:
    """A GIF file that is a page, too: a comment opens in its header, and closes behind the pixels."""
    page = b"*/=1;</script><script>alert('planted')</script><!--"
    made = encoded(picture(64, 64), "GIF")
    at = made.index(b",")
    comment = b"!\xfe" + bytes([len(page)]) + page + b"\0"
    return made[:at] + comment + made[at:] + page


def test_a_page_in_an_image_comes_out_as_pixels_only() -> None:
    upload = _page_in_gif()
    assert upload.count(b"<script>") == 2

    for variant in process(upload, "image/gif").variants:
        assert b"script" not in variant.data
        assert b"planted" not in variant.data
        assert all(map(near, quarters(opened(variant.data)), COLOURS))


def test_a_jpeg_with_too_many_scans_is_refused() -> None:
    data = encoded(picture(64, 64), "JPEG", progressive=True)
    first, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
    scan = data[data.rindex(b"\xff\xda") : end]
    assert first < end - len(scan)

    assert process(data[:end] + scan * 20 + data[end:], "image/jpeg").variants
    assert _refused(data[:end] + scan * 200 + data[end:], "image/jpeg").reason == Reason.TOO_MANY_SCANS


def test_a_sequence_of_images_in_avif_is_refused() -> None:
    frames = [picture(32, 32), Image.new("RGB", (32, 32), "black")]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])

    assert _refused(data, "image/avif").reason == Reason.ANIMATED


def test_in_avif_the_frames_that_are_never_shown_count_as_well() -> None:
    data = encoded(Image.new("L", (1000, 1000)), "AVIF")
    start = data.index(b"mdat") + 4
    head, item = data[: start - 8], data[start:]
    # A delimiter, a sequence header of less than 128 bytes, and the frame.
    frame = item[4 + item[3] :]
    assert (item[:3], frame[0]) == (b"\x12\0\x0a", 0x32)
    assert head.count(struct.pack(">I", len(item))) == 1

    def with_frames(count: int) -> bytes:
        longer = item + frame * count
        located = head.replace(struct.pack(">I", len(item)), struct.pack(">I", len(longer)))
        return located + struct.pack(">I4s", 8 + len(longer), b"mdat") + longer

    assert process(with_frames(10), "image/avif").variants
    assert _refused(with_frames(80), "image/avif").reason == Reason.TOO_MANY_PIXELS


def _no_width_png() -> bytes:
    data = encoded(picture(32, 32), "PNG")
    return data[:16] + bytes(4) + data[20:]


def _no_height_jpeg() -> bytes:
    data = encoded(picture(32, 32), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + bytes(2) + data[at + 2 :]


def _two_frames_jpeg() -> bytes:
    data = encoded(picture(32, 32), "JPEG")
    return data[:2] + jpeg_segment(0xC0, b"\x08" + struct.pack(">HH", 60_000, 60_000) + b"\x01\x01\x11\0") + data[2:]


def _no_palette_png() -> bytes:
    data = encoded(picture(32, 32).quantize(16), "PNG")
    at = data.index(b"PLTE") - 4
    (length,) = struct.unpack_from(">I", data, at)
    return data[:at] + data[at + 12 + length :]


@pytest.mark.parametrize(
    ("make", "declared"),
    [
        (_no_width_png, "image/png"),
        (_no_height_jpeg, "image/jpeg"),
        (_two_frames_jpeg, "image/jpeg"),
        (lambda: b"\x89PNG\r\n\x1a\n", "image/png"),
        (lambda: b"GIF89a" + bytes(7), "image/gif"),
        (lambda: b"RIFF\x04\0\0\0WEBP", "image/webp"),
        (lambda: b"\xff\xd8\xff\xd9", "image/jpeg"),
        (lambda: b"\0\0\0\x14ftypavif\0\0\0\0avif", "image/avif"),
    ],
)
def test_files_without_an_image_are_refused(make: Callable[[], bytes], declared: str) -> None:
    assert _refused(make(), declared).reason == Reason.DAMAGED


def test_the_limit_of_pixels_that_pillow_keeps_for_all_is_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    process(encoded(picture(32, 32), "PNG"), "image/png")

    assert before == Image.MAX_IMAGE_PIXELS
    assert Image.open(io.BytesIO(encoded(picture(32, 32), "TIFF"))).format == "TIFF"

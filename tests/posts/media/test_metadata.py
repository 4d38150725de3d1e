"""Nothing of an upload but its pixels is in what is made of it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from services.posts.media.images import Processed, process
from tests.posts.media.drawing import (
    COLOURS,
    CONTENT_TYPES,
    encoded,
    jpeg_segment,
    jpeg_with,
    near,
    opened,
    picture,
    png_chunk,
    png_with,
    quarters,
)

_PLANTED = b"planted-"
_XMP = b"<x:xmpmeta>planted-xmp</x:xmpmeta>"
_SEGMENTS_OF_JPEG = {0xD8, 0xE0, 0xDB, 0xC2, 0xC4, 0xDA, 0xD9}
_CHUNKS_OF_WEBP = {b"VP8 ", b"VP8X", b"ALPH"}


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _primaries(profile: bytes) -> dict[str, int]:
    """Where a profile tells what red, green and blue are: three numbers of four bytes each."""
    tags = range(132, 132 + 12 * profile[131], 12)
    at = {profile[tag : tag + 4].decode(): int.from_bytes(profile[tag + 4 : tag + 8], "big") + 8 for tag in tags}
    return {name: at[name] for name in ("rXYZ", "gXYZ", "bXYZ")}


def _red_for_blue() -> bytes:
    """A profile that calls blue what sRGB calls red, with words of its own."""
    profile = bytearray(_srgb())
    at = _primaries(profile)
    red, blue = at["rXYZ"], at["bXYZ"]
    profile[red : red + 12], profile[blue : blue + 12] = profile[blue : blue + 12], profile[red : red + 12]
    description = profile.index("sRGB".encode("utf-16-be"))
    profile[description : description + 8] = _PLANTED
    return bytes(profile)


def _half_as_bright() -> bytes:
    profile = bytearray(_srgb())
    for at in _primaries(profile).values():
        halves = (value // 2 for value in struct.unpack_from(">3i", profile, at))
        struct.pack_into(">3i", profile, at, *halves)
    return bytes(profile)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "planted-exif"
    exif.get_ifd(0x8825)[0x0002] = (12.0, 34.0, 56.0)
    exif.get_ifd(0x8825)[0x001B] = b"planted-gps"
    return exif


def _iptc() -> bytes:
    record = b"\x1c\x02\x78" + struct.pack(">H", 12) + b"planted-iptc"
    return b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record


def _jpeg() -> bytes:
    made = encoded(
        picture(400, 300), "JPEG", exif=_exif(), xmp=_XMP, icc_profile=_red_for_blue(), comment="planted-com"
    )
    made = jpeg_with(made, jpeg_segment(0xED, _iptc()), jpeg_segment(0xEF, b"planted-application"))
    return made + b"planted-behind"


def _png() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "planted-text")
    texts.add_text("Zipped", "planted-zipped", zip=True)
    texts.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    made = encoded(picture(400, 300), "PNG", exif=_exif(), pnginfo=texts, icc_profile=_red_for_blue())
    return png_with(made, png_chunk(b"prVt", b"planted-private")) + b"planted-behind"


def _webp() -> bytes:
    made = encoded(picture(400, 300), "WEBP", exif=_exif().tobytes(), xmp=_XMP, icc_profile=_red_for_blue())
    return made + b"planted-behind"


def _avif() -> bytes:
    return encoded(picture(400, 300), "AVIF", exif=_exif().tobytes(), xmp=_XMP, icc_profile=_red_for_blue())


def _gif() -> bytes:
    made = encoded(picture(400, 300), "GIF", comment=b"planted-comment")
    application = b"!\xff\x0bXMP DataXMP" + bytes([len(_XMP)]) + _XMP + b"\0"
    at = made.index(b"!")
    return made[:at] + application + made[at:] + b"planted-behind"


_UPLOADS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "AVIF": _avif, "GIF": _gif}


@pytest.mark.parametrize("format_name", _UPLOADS)
def test_nothing_that_was_planted_comes_out(format_name: str) -> None:
    upload = _UPLOADS[format_name]()
    assert upload.count(_PLANTED) >= 3

    processed = process(upload, CONTENT_TYPES[format_name])

    assert len(processed.variants) == 4
    for variant in processed.variants:
        assert _PLANTED not in variant.data
        assert _PLANTED not in _inflated(variant.data)
    _has_only_pixels(processed)


def _inflated(data: bytes) -> bytes:
    """What zlib streams in there hold."""
    found = b""
    for at in range(len(data) - 2):
        if data[at] == 0x78 and (data[at] * 256 + data[at + 1]) % 31 == 0:
            try:
                found += zlib.decompressobj().decompress(data[at:], 10_000)
            except zlib.error:
                continue
    return found


def _has_only_pixels(processed: Processed) -> None:
    for variant in processed.variants:
        if variant.content_type == "image/jpeg":
            assert set(_segments(variant.data)) == _SEGMENTS_OF_JPEG
        else:
            assert set(_chunks(variant.data)) <= _CHUNKS_OF_WEBP


def _segments(data: bytes) -> list[int]:
    """The markers of a JPEG file."""
    behind_ff = (data[at + 1] for at in range(len(data) - 1) if data[at] == 0xFF)
    return [marker for marker in behind_ff if marker not in (0, *range(0xD0, 0xD8))]


def _chunks(data: bytes) -> list[bytes]:
    """The kinds of chunks of a WebP file."""
    kinds, at = [], 12
    while at < len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        kinds.append(kind)
        at += 8 + size + size % 2
    return kinds


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_transparent_or_not_there_are_only_pixels(mode: str) -> None:
    image = picture(400, 300).convert(mode)
    if mode == "RGBA":
        image.putpixel((0, 0), (0, 0, 0, 0))

    _has_only_pixels(process(encoded(image, "PNG"), "image/png"))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_colours_are_converted_as_the_profile_says(format_name: str) -> None:
    image = Image.new("RGB", (64, 64), (255, 0, 0))

    processed = process(encoded(image, format_name, icc_profile=_red_for_blue()), CONTENT_TYPES[format_name])

    for variant in processed.variants:
        assert near(opened(variant.data).getpixel((32, 32)), (0, 0, 255))


def test_a_profile_leaves_transparency_as_it_is() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 100))

    webp, _ = process(encoded(image, "PNG", icc_profile=_red_for_blue()), "image/png").variants

    assert near(opened(webp.data).getpixel((32, 32)), (0, 0, 255, 100))


def test_a_profile_of_colours_is_good_for_grey() -> None:
    image = Image.new("L", (64, 64), 128)

    webp, _ = process(encoded(image, "PNG", icc_profile=_half_as_bright()), "image/png").variants

    assert near(opened(webp.data).getpixel((32, 32)), (93, 93, 93), by=4)


@pytest.mark.parametrize("profile", [b"no profile", _srgb()[:200], b"\0" * 5000], ids=["words", "cut", "zeros"])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_a_broken_profile_is_ignored(format_name: str, profile: bytes) -> None:
    upload = encoded(picture(64, 64), format_name, icc_profile=profile)

    for variant in process(upload, CONTENT_TYPES[format_name]).variants:
        assert all(map(near, quarters(opened(variant.data)), COLOURS))


_BROKEN_PROFILES = {
    "jpeg-without-number": jpeg_with(encoded(picture(64, 64), "JPEG"), jpeg_segment(0xE2, b"ICC_PROFILE\0")),
    "jpeg-one-of-two": jpeg_with(encoded(picture(64, 64), "JPEG"), jpeg_segment(0xE2, b"ICC_PROFILE\0\1\2" + _srgb())),
    "png-without-end": png_with(encoded(picture(64, 64), "PNG"), png_chunk(b"iCCP", b"name")),
    "png-of-no-known-method": png_with(encoded(picture(64, 64), "PNG"), png_chunk(b"iCCP", b"name\0\x07" + bytes(20))),
    "png-bomb": png_with(
        encoded(picture(64, 64), "PNG"), png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(20_000_000), 1))
    ),
}


@pytest.mark.parametrize("upload", _BROKEN_PROFILES.values(), ids=_BROKEN_PROFILES)
def test_a_profile_that_is_badly_stored_is_ignored(upload: bytes) -> None:
    declared = "image/jpeg" if upload.startswith(b"\xff") else "image/png"

    for variant in process(upload, declared).variants:
        assert all(map(near, quarters(opened(variant.data)), COLOURS))


def test_a_profile_for_another_kind_of_image_is_ignored() -> None:
    upload = encoded(picture(64, 64).convert("CMYK"), "JPEG", icc_profile=_srgb())

    for variant in process(upload, "image/jpeg").variants:
        assert all(map(near, quarters(opened(variant.data)), COLOURS))


_BROKEN_EXIF = {
    "words": b"Exif\0\0no TIFF at all",
    "cut": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "far": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "no-such-orientation": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
    "values-beyond-the-end": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0\0\0\0\0",
}


def _with_exif(format_name: str, exif: bytes) -> bytes:
    if format_name == "JPEG":
        return jpeg_with(encoded(picture(64, 64), "JPEG"), jpeg_segment(0xE1, exif))
    if format_name == "PNG":
        return png_with(encoded(picture(64, 64), "PNG"), png_chunk(b"eXIf", exif[6:]))
    # Written as an empty directory, and broken in the file.
    written = b"II*\0\x08\0\0\0\0\0".ljust(len(exif) - 6, b"\xaa")
    made = encoded(picture(64, 64), format_name, exif=b"Exif\0\0" + written)
    assert made.count(written) == 1
    return made.replace(written, exif[6:])


@pytest.mark.parametrize("exif", [exif.ljust(40, b"\0") for exif in _BROKEN_EXIF.values()], ids=_BROKEN_EXIF)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_broken_exif_is_ignored_and_warns_nobody(format_name: str, exif: bytes) -> None:
    upload = _with_exif(format_name, exif)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        processed = process(upload, CONTENT_TYPES[format_name])

    assert not warned
    assert all(map(near, quarters(opened(processed.variants[0].data)), COLOURS))


def test_a_broken_animation_and_a_broken_index_of_pictures_warn_nobody() -> None:
    animation = png_with(encoded(picture(64, 64), "PNG"), png_chunk(b"acTL", bytes(8)))
    index = jpeg_with(encoded(picture(64, 64), "JPEG"), jpeg_segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + bytes(6)))
    with pytest.warns(UserWarning, match="APNG"):
        Image.open(io.BytesIO(animation))
    with pytest.warns(UserWarning, match="MPO"):
        Image.open(io.BytesIO(index))

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        process(animation, "image/png")
        process(index, "image/jpeg")

    assert not warned

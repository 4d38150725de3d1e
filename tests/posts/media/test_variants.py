"""What is made of an image: sizes, formats, colours, and how it is turned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import blurhash
import pytest
from PIL import Image, ImageOps
from PIL.Image import Transpose

from services.posts.media.images import Processed, process
from tests.posts.media.drawing import COLOURS, CONTENT_TYPES, FORMATS, encoded, near, opened, picture, quarters

_ORIENTATION = 0x0112
# What a camera that was held so has stored of an upright image.
_STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def _made(image: Image.Image, format_name: str = "PNG", **options: Any) -> Processed:
    return process(encoded(image, format_name, **options), CONTENT_TYPES[format_name])


def _sizes(processed: Processed) -> list[tuple[int, int]]:
    return [(variant.width, variant.height) for variant in processed.variants[::2]]


def _webp_and_jpeg(processed: Processed) -> tuple[Image.Image, Image.Image]:
    webp, jpeg = processed.variants[-2:]
    return opened(webp.data), opened(jpeg.data)


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_format_becomes_webp_and_jpeg_of_three_widths(format_name: str) -> None:
    processed = _made(picture(1200, 900), format_name)

    assert (processed.width, processed.height) == (1200, 900)
    assert [(v.width, v.height, v.content_type) for v in processed.variants] == [
        (width, height, content_type)
        for width, height in ((320, 240), (640, 480), (1080, 810))
        for content_type in ("image/webp", "image/jpeg")
    ]
    for variant in processed.variants:
        shown = opened(variant.data)
        assert shown.size == (variant.width, variant.height)
        assert f"image/{shown.format.lower()}" == variant.content_type
        assert all(map(near, quarters(shown), COLOURS))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), [(1, 1)]),
        ((200, 100), [(200, 100)]),
        ((320, 50), [(320, 50)]),
        ((500, 400), [(320, 256), (500, 400)]),
        ((1080, 10), [(320, 3), (640, 6), (1080, 10)]),
        ((20_000, 2), [(320, 1), (640, 1), (1080, 1)]),
        # As high as WebP can be.
        ((2, 20_000), [(2, 16_383)]),
    ],
)
def test_no_image_is_enlarged_and_each_has_a_variant(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    processed = _made(Image.new("L", size, 128))

    assert (processed.width, processed.height) == size
    assert _sizes(processed) == expected


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", _STORED)
def test_an_image_is_shown_upright(format_name: str, orientation: int) -> None:
    upright = picture(120, 90)
    method = _STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    data = encoded(stored, format_name, exif=exif)
    # The table above is right by what Pillow itself makes of the file.
    assert all(map(near, quarters(ImageOps.exif_transpose(opened(data))), COLOURS))

    processed = process(data, CONTENT_TYPES[format_name])

    assert (processed.width, processed.height) == (120, 90)
    assert _sizes(processed) == [(120, 90)]
    for variant in processed.variants:
        assert all(map(near, quarters(opened(variant.data)), COLOURS))


def test_an_image_that_lies_on_its_side_keeps_what_fits_into_its_width() -> None:
    """Stripes across a long image: none is lost, as it would be if the stored width were taken for that to be shown."""
    stripes = Image.new("L", (5000, 500))
    for left in range(0, 5000, 50):
        stripes.paste(255, (left, 0, left + 25, 500))
    exif = Image.Exif()
    exif[_ORIENTATION] = 6

    processed = _made(stripes.transpose(_STORED[6]), "JPEG", exif=exif)

    assert (processed.width, processed.height) == (5000, 500)
    assert _sizes(processed) == [(320, 32), (640, 64), (1080, 108)]
    _, jpeg = _webp_and_jpeg(processed)
    row = [jpeg.convert("L").getpixel((x, 54)) > 128 for x in range(1080)]
    assert sum(a != b for a, b in pairwise(row)) == 199


def test_transparency_stays_in_webp_and_is_white_in_jpeg() -> None:
    image = picture(400, 400).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 200, 200))

    webp, jpeg = _webp_and_jpeg(_made(image))

    assert webp.getpixel((100, 100))[3] == 0
    assert webp.getpixel((300, 300))[3] == 255
    assert near(jpeg.getpixel((100, 100)), (255, 255, 255), by=8)
    assert near(jpeg.getpixel((300, 300)), COLOURS[3])


def test_what_has_no_transparent_pixel_loses_its_alpha_channel() -> None:
    webp, _ = _webp_and_jpeg(_made(picture(40, 40).convert("RGBA")))

    assert webp.mode == "RGB"


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (picture(64, 64).quantize(16), {"transparency": 99}),
        (picture(64, 64).convert("RGB"), {"transparency": (1, 2, 3)}),
        (picture(64, 64).convert("RGBA").quantize(16), {}),
    ],
    ids=["palette", "one-colour", "palette-with-alphas"],
)
def test_transparent_colours_of_png_keep_the_others(image: Image.Image, options: dict[str, Any]) -> None:
    webp, jpeg = _webp_and_jpeg(_made(image, **options))

    assert all(map(near, quarters(webp), COLOURS))
    assert all(map(near, quarters(jpeg), COLOURS))


@pytest.mark.parametrize(("format_name", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("GIF", "P")])
def test_the_colour_that_means_transparent_is_transparent(format_name: str, mode: str) -> None:
    image = Image.new(mode, (64, 64), 0)
    image.paste(1, (32, 0, 64, 64))

    webp, jpeg = _webp_and_jpeg(_made(image, format_name, transparency=(0, 0, 0) if mode == "RGB" else 0))

    assert [webp.getpixel((x, 32))[3] for x in (16, 48)] == [0, 255]
    assert near(jpeg.convert("RGB").getpixel((16, 32)), (255, 255, 255), by=8)


def test_sixteen_bits_of_grey_keep_their_brightness() -> None:
    for value in (0, 0x4000, 0x8000, 0xFFFF):
        _, jpeg = _webp_and_jpeg(_made(Image.new("I;16", (40, 40), value)))
        assert near(jpeg.convert("RGB").getpixel((20, 20)), (value >> 8,) * 3, by=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_images_stay_grey(mode: str) -> None:
    webp, jpeg = _webp_and_jpeg(_made(Image.new("L", (40, 40), 255).convert(mode)))

    assert near(webp.convert("RGB").getpixel((20, 20)), (255, 255, 255), by=3)
    assert near(jpeg.convert("RGB").getpixel((20, 20)), (255, 255, 255), by=3)


def test_a_jpeg_for_print_becomes_rgb() -> None:
    webp, jpeg = _webp_and_jpeg(_made(picture(400, 300).convert("CMYK"), "JPEG"))

    assert (webp.mode, jpeg.mode) == ("RGB", "RGB")
    assert all(map(near, quarters(jpeg), COLOURS))


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(format_name: str) -> None:
    first, second = picture(64, 48), Image.new("RGB", (64, 48), "black")

    webp, _ = _webp_and_jpeg(_made(first, format_name, save_all=True, append_images=[second, second], duration=50))

    assert not getattr(webp, "is_animated", False)
    assert all(map(near, quarters(webp), COLOURS))


def test_the_blurhash_has_the_colours_of_the_image() -> None:
    found = _made(picture(400, 300)).blurhash

    assert tuple(blurhash.components(found)) == (4, 3)
    rows = blurhash.decode(found, 4, 4)
    shown = [tuple(map(int, rows[y][x])) for y in (0, 3) for x in (0, 3)]
    # A blur: which colour leads is what stays.
    for colour, expected in zip(shown[:3], COLOURS[:3], strict=True):
        assert max(range(3), key=colour.__getitem__) == max(range(3), key=expected.__getitem__)


def test_the_same_image_gives_the_same_in_many_threads() -> None:
    uploads = [(encoded(picture(200, 150), name), CONTENT_TYPES[name]) for name in FORMATS] * 2
    expected = [process(*upload) for upload in uploads[: len(FORMATS)]] * 2

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda upload: process(*upload), uploads))

    assert found == expected

"""Uploaded images: checked, and made into pictures of the sizes and formats that are shown.

Bytes come in, bytes go out. What goes out is encoded anew from pixels alone: nothing else of an upload is in it. No
state is shared, so calls may run in any number of threads or processes. Of the largest images the decoders of WebP and
AVIF hold the interpreter for a tenth of a second at a time: what must not wait for that belongs into another process.
One call took up to 500 MB of memory (WebP of 25 million pixels with transparency; JPEG of as many up to 220), so how
many run at once has to be bounded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import blurhash
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Resampling
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from services.posts.media.colour import on_white, resizable, to_srgb
from services.posts.media.containers import Format, check_size, contained, format_of
from services.posts.media.orientation import orientation, turned, upright
from services.posts.media.refusal import ImageRefused, Reason, damaged

WIDTHS = (320, 640, 1080)
# The longest side that WebP can have.
_MAX_HEIGHT = 16_383
_JPEG_QUALITY = 82
_WEBP_QUALITY = 80
# From 0, the fastest, to 6, the smallest files. 4, the encoder's own choice, takes twice the time for 4 % fewer bytes.
_WEBP_METHOD = 2
_BLURHASH_COMPONENTS = (4, 3)
# More pixels change nothing that 12 components could show.
_BLURHASH_PIXELS = (32, 24)

_EXTENSIONS = {Format.WEBP.content_type: "webp", Format.JPEG.content_type: "jpg"}

# Named one by one: whatever else Pillow can read is never tried.
_DECODERS: dict[Format, type[ImageFile]] = {
    Format.JPEG: JpegImageFile,
    Format.PNG: PngImageFile,
    Format.WEBP: WebPImageFile,
    Format.AVIF: AvifImageFile,
    Format.GIF: GifImageFile,
}


class Variant(NamedTuple):
    """An image in one size and format."""

    width: int
    height: int
    content_type: str
    data: bytes

    @property
    def name(self) -> str:
        """What its blob is called."""
        return variant_name(self.width, self.content_type)


class Processed(NamedTuple):
    """What is made of an upload.

    Attributes:
        width, height: Of the image as it is to be looked at, in its full size.
        blurhash: A placeholder to show until a variant has been loaded.
        variants: The smallest first, of each size WebP and JPEG.
    """

    width: int
    height: int
    blurhash: str
    variants: tuple[Variant, ...]


class _Decoded(NamedTuple):
    """An image as it is to be looked at, in the size of its biggest variant, and its full size."""

    image: Image.Image
    width: int
    height: int


def variant_name(width: int, content_type: str) -> str:
    """What the blob of a variant is called: 640.webp. An image has no two variants of the same width and type."""
    return f"{width}.{_EXTENSIONS[content_type]}"


def process(data: bytes, declared: str) -> Processed:
    """Check an image, and make its variants.

    Args:
        data: The file.
        declared: Its content type, as who uploads it says: image/jpeg, image/png, image/webp, image/avif or image/gif.

    Raises:
        ImageRefused: It is not taken; the error says why.
    """
    image_format = _checked_format(data, declared)
    decoded = _decoded(data, image_format)
    variants: list[Variant] = []
    image = decoded.image
    # From the biggest on, each made of the one before.
    for size in reversed(_sizes(decoded.width, decoded.height)):
        image = _resized(image, size)
        variants[:0] = _encoded(image)
    return Processed(decoded.width, decoded.height, _blurhash(image), tuple(variants))


def _checked_format(data: bytes, declared: str) -> Format:
    if not data:
        raise ImageRefused(Reason.EMPTY, "The file is empty: upload an image.")
    found = format_of(data)
    taken = "a JPEG, PNG, WebP, AVIF or GIF file"
    if found is None:
        raise ImageRefused(Reason.UNKNOWN_FORMAT, f"The file is no image of a known format: upload {taken}.")
    if declared not in (known.content_type for known in Format):
        raise ImageRefused(
            Reason.UNKNOWN_FORMAT,
            f"Images of the declared content type are not taken: declare {found.content_type}, as the file is.",
        )
    if declared != found.content_type:
        raise ImageRefused(
            Reason.ANOTHER_FORMAT,
            f"The file is declared as {declared}, but it is a {found.label} file: declare {found.content_type}.",
        )
    return found


def _decoded(data: bytes, image_format: Format) -> _Decoded:
    found = contained(data, image_format)
    with _refusing_what_is_broken(image_format), _DECODERS[image_format](io.BytesIO(found.data)) as opened:
        check_size(*opened.size, image_format)
        value = orientation(found.exif or opened.info.get("exif", b""))
        width, height = turned(opened.size, value)
        biggest = turned(_sizes(width, height)[-1], value)
        # A JPEG can be decoded at a half, a quarter or an eighth of its size.
        opened.draft(None, biggest)
        opened.load()
        pixels = resizable(opened)
        profile = found.profile or opened.info.get("icc_profile")
    return _Decoded(to_srgb(upright(_resized(pixels, biggest), value), profile), width, height)


@contextmanager
def _refusing_what_is_broken(image_format: Format) -> Iterator[None]:
    """Decoders raise whatever they like, and their texts help nobody. A lack of memory is none of the image."""
    try:
        yield
    except (ImageRefused, MemoryError):
        raise
    except Exception:
        raise damaged(image_format.label) from None


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    """The sizes of the variants, the smallest first: none is larger than the image."""
    sizes = set()
    for most in WIDTHS:
        scale = min(most / width, _MAX_HEIGHT / height, 1)
        sizes.add((max(1, round(width * scale)), max(1, round(height * scale))))
    return sorted(sizes)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image in another size; first by whole numbers of pixels if it is far bigger, which costs less."""
    return image if image.size == size else image.resize(size, Resampling.BICUBIC, reducing_gap=2.0)


def _encoded(image: Image.Image) -> list[Variant]:
    # Some encoders write what a decoder has left there, as a comment. Decoders are given none; this is the second lock.
    image.info = {}
    jpeg, webp = io.BytesIO(), io.BytesIO()
    image.save(webp, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_METHOD)
    on_white(image).save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True, progressive=True)
    return [
        Variant(image.width, image.height, Format.WEBP.content_type, webp.getvalue()),
        Variant(image.width, image.height, Format.JPEG.content_type, jpeg.getvalue()),
    ]


def _blurhash(image: Image.Image) -> str:
    thumbnail = on_white(image).resize(_BLURHASH_PIXELS, Resampling.BOX)
    width, height = thumbnail.size
    pixels = list(zip(*[iter(thumbnail.tobytes())] * 3, strict=True))
    rows = [pixels[at : at + width] for at in range(0, width * height, width)]
    return str(blurhash.encode(rows, *_BLURHASH_COMPONENTS))

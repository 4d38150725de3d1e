"""How a camera was held, as EXIF tells."""

from __future__ import annotations

import struct

from PIL import Image
from PIL.Image import Transpose

_TAG = 0x0112
_LONG = 4
_ENTRY_BYTES = 12
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}


def orientation(exif: bytes) -> int:
    """The orientation, 1 to 8; 1, which is upright, if there is none or EXIF is broken.

    It is read here, because Pillow reads all of EXIF for it, and warns of what is broken elsewhere in it through
    `warnings`, which are one setting for all threads.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 1
    try:
        value = _first_value(tiff, order)
    except struct.error:
        return 1
    return value if value in _UPRIGHT else 1


def _first_value(tiff: bytes, order: str) -> int:
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, directory)
    first = directory + 2
    for entry in range(first, first + count * _ENTRY_BYTES, _ENTRY_BYTES):
        tag, kind = struct.unpack_from(order + "HH", tiff, entry)
        if tag == _TAG:
            value: int = struct.unpack_from(order + ("I" if kind == _LONG else "H"), tiff, entry + 8)[0]
            return value
    return 1


def turned(size: tuple[int, int], value: int) -> tuple[int, int]:
    """The size of an image after `upright`, or before it."""
    width, height = size
    return (height, width) if value in _SIDEWAYS else (width, height)


def upright(image: Image.Image, value: int) -> Image.Image:
    """The image as it is to be looked at."""
    method = _UPRIGHT.get(value)
    return image if method is None else image.transpose(method)

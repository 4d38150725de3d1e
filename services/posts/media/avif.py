"""AVIF files: how many pixels are coded in one, and where its metadata are.

The size that the container tells is no bound: decoders decode what is coded, and scale it to that size. What is coded
in how many pixels tells the sequence header of each coded item: an AV1 bitstream. Names are those of ISO/IEC 14496-12
and 23008-12 (boxes), and of the AV1 specification (OBUs, section 5.3, and sequence headers, section 5.5).

What is broken raises ValueError, IndexError or struct.error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_BRANDS = {b"avif", b"avis"}
_CODED = b"av01"
_METADATA = (b"Exif", b"mime")
_FREE = b"skip"
# Boxes, items, extents and OBUs: a still image has a handful of each, in a grid some hundred. Bounds what a hostile
# file costs.
_MAX_PARTS = 10_000
# Items may share their data; so much they may have together, in sizes of the file.
_MAX_SHARING = 4
# Types of OBUs: a sequence header; a frame header that stands alone, and one with its frame.
_SEQUENCE_HEADER = 1
_FRAMES = {3, 6}
_MAX_SEQUENCE_HEADER = 1024


class _Box(NamedTuple):
    kind: bytes
    start: int
    end: int


class _Item(NamedTuple):
    """An item, and where its kind is written."""

    id: int
    kind: bytes
    kind_at: int


class Coded(NamedTuple):
    """The pixels that are coded in a file.

    Attributes:
        largest: In its largest frame.
        total: In all frames of all items.
    """

    largest: int
    total: int


def is_avif(data: bytes) -> bool:
    """Whether the file says so."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 1024)]
    return any(brands[at : at + 4] in _BRANDS for at in range(0, len(brands), 4))


def is_sequence(data: bytes) -> bool:
    """Whether there are several images in the file that follow each other in time."""
    return any(box.kind == b"moov" for box in _boxes(data, 0, len(data)))


def without_metadata(data: bytes) -> bytes:
    """A copy of the file whose EXIF and XMP are items of no known kind."""
    copy = bytearray(data)
    for item in _items(data, _meta(data)):
        if item.kind in _METADATA:
            copy[item.kind_at : item.kind_at + 4] = _FREE
    return bytes(copy)


def coded(data: bytes) -> Coded:
    """How many pixels a decoder may have to decode."""
    meta = _meta(data)
    wanted = {item.id for item in _items(data, meta) if item.kind == _CODED}
    largest, total, obus = 0, 0, 0
    for item_id, bitstream in _bitstreams(data, meta):
        if item_id not in wanted:
            continue
        pixels, frames = 0, 0
        for kind, payload in _obus(bitstream):
            obus = _counted(obus)
            if kind == _SEQUENCE_HEADER:
                pixels = max(pixels, _frame_pixels(payload))
            # Any number of frames may come before the one that is shown.
            frames += kind in _FRAMES
        if not pixels:
            raise ValueError("an item without a sequence header")
        largest, total = max(largest, pixels), total + pixels * frames
    return Coded(largest, total)


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    """The boxes there, one after the other."""
    at, count = start, 0
    while at < end:
        count = _counted(count)
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            header = 16
        elif size == 0:
            size = end - at
        if size < header or at + size > end:
            raise ValueError("a box of no possible size")
        yield _Box(kind, at + header, at + size)
        at += size


def _meta(data: bytes) -> dict[bytes, _Box]:
    """The boxes of the meta box, by their kind."""
    (meta,) = (box for box in _boxes(data, 0, len(data)) if box.kind == b"meta")
    children = list(_boxes(data, meta.start + 4, meta.end))
    by_kind = {box.kind: box for box in children}
    if len(by_kind) != len(children) or not {b"iinf", b"iloc"} <= by_kind.keys():
        raise ValueError("boxes that are missing, or there twice")
    return by_kind


def _items(data: bytes, meta: dict[bytes, _Box]) -> Iterator[_Item]:
    box = meta[b"iinf"]
    entries = box.start + (6 if data[box.start] == 0 else 8)
    for entry in _boxes(data, entries, box.end):
        version = data[entry.start]
        if version not in (2, 3):
            raise ValueError("an item of no known version")
        id_bytes = 2 if version == 2 else 4
        item_id = int.from_bytes(data[entry.start + 4 : entry.start + 4 + id_bytes], "big")
        kind_at = entry.start + 4 + id_bytes + 2
        yield _Item(item_id, data[kind_at : kind_at + 4], kind_at)


def _bitstreams(data: bytes, meta: dict[bytes, _Box]) -> Iterator[tuple[int, bytes]]:
    """The data of each item, by its id, as the item location box tells."""
    reader = _Bits(data[meta[b"iloc"].start : meta[b"iloc"].end])
    version = reader.take(8)
    reader.take(24)
    offset_bits, length_bits, base_bits, index_bits = (8 * reader.take(4) for _ in range(4))
    count, total = 0, 0
    for _ in range(reader.take(16 if version < 2 else 32)):
        count = _counted(count)
        item_id = reader.take(16 if version < 2 else 32)
        source = _source(data, meta, reader.take(16) & 0x0F if version else 0)
        reader.take(16)
        base = reader.take(base_bits)
        parts = []
        for _ in range(reader.take(16)):
            count = _counted(count)
            reader.take(index_bits if version else 0)
            start = source.start + base + reader.take(offset_bits)
            length = reader.take(length_bits) or source.end - start
            total += length
            if length < 0 or start + length > source.end or total > _MAX_SHARING * len(data):
                raise ValueError("an item that ends beyond the file, or too many of the same data")
            parts.append(data[start : start + length])
        yield item_id, b"".join(parts)


def _counted(count: int) -> int:
    """One more."""
    if count >= _MAX_PARTS:
        raise ValueError("too many parts")
    return count + 1


def _source(data: bytes, meta: dict[bytes, _Box], method: int) -> _Box:
    """What the offsets of an item are counted from."""
    if method == 0:
        return _Box(b"", 0, len(data))
    if method == 1 and b"idat" in meta:
        return meta[b"idat"]
    raise ValueError("an item in no known place")


def _obus(bitstream: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the payload of each open bitstream unit."""
    at = 0
    while at < len(bitstream):
        header = bitstream[at]
        at += 2 if header & 0x04 else 1
        size = len(bitstream) - at
        if header & 0x02:
            size, at = _leb128(bitstream, at)
        if size < 0 or at + size > len(bitstream):
            raise ValueError("an OBU that ends beyond its item")
        yield header >> 3 & 0x0F, bitstream[at : at + min(size, _MAX_SEQUENCE_HEADER)]
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = 0
    for index in range(8):
        value |= (data[at + index] & 0x7F) << (7 * index)
        if data[at + index] < 0x80:
            return value, at + index + 1
    raise ValueError("a number of more than eight bytes")


def _frame_pixels(sequence_header: bytes) -> int:
    """The most pixels that a frame may have."""
    bits = _Bits(sequence_header)
    bits.take(4)  # seq_profile, still_picture
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    # A frame may say a size of its own, of any number of these bits. Encoders take as many as the size needs, and
    # that is less than four times as many pixels.
    return max(width * height, (1 << width_bits + height_bits) // 4)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(42)
    initial_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if initial_delay and bits.take(1):
            bits.take(4)


class _Bits:
    """Numbers of any count of bits, the first bit of a byte being its highest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        """The next `count` bits."""
        first, self._at = self._at, self._at + count
        last = (self._at + 7) // 8
        if last > len(self._data):
            raise ValueError("too short")
        bits = int.from_bytes(self._data[first // 8 : last], "big")
        return bits >> (8 * last - self._at) & ((1 << count) - 1)

"""Files that claim, or hold, more pixels than are taken: refused before memory is used for them.

Each is processed in a process of its own, whose peak of resident memory the kernel keeps: a decoder that had made room
for the pixels and filled it would have raised it, also if that was free again.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.posts.media.drawing import encoded, picture

_ROOT = Path(__file__).parents[3]
_CHILD = """
import sys
from pathlib import Path
from services.posts.media.images import process
from services.posts.media.refusal import ImageRefused

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024

small, file, declared = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes(), sys.argv[3]
# What the first image of the process takes once: code, and profiles of colours.
process(small, declared)
before = peak()
try:
    process(file, declared)
    outcome = "taken"
except ImageRefused as refused:
    outcome = refused.reason
print(outcome, peak() - before)
"""


def _outcome(folder: Path, small: bytes, file: bytes, declared: str) -> tuple[str, int]:
    """What becomes of a file, and by how many MiB it raises the peak of memory."""
    (folder / "small").write_bytes(small)
    (folder / "file").write_bytes(file)
    command = [sys.executable, "-c", _CHILD, str(folder / "small"), str(folder / "file"), declared]
    outcome, grown = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout.split()
    return outcome, int(grown)


def _png(side: int) -> bytes:
    """One bit for each pixel, which compresses by a thousand, and as RGB takes 24."""
    return encoded(Image.new("1", (side, side)), "PNG")


def _jpeg() -> bytes:
    data = encoded(picture(64, 64), "JPEG", progressive=True)
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", 20_000, 20_000) + data[at + 4 :]


def _gif() -> bytes:
    """A frame that reaches far beyond the screen, and is to be disposed of."""
    data = encoded(picture(64, 64), "GIF")
    at = data.index(b",")
    control = b"!\xf9\x04\x08\0\0\0\0"
    return data[:at] + control + data[at : at + 5] + struct.pack("<HH", 13_000, 13_000) + data[at + 9 :]


def _webp() -> bytes:
    """Small frames on a canvas that is huge."""
    frames = [picture(64, 64), picture(32, 32).resize((64, 64))]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert data[12:16] == b"VP8X"
    return data[:24] + (9_999).to_bytes(3, "little") * 2 + data[30:]


def _avif(coded: tuple[int, int], told: tuple[int, int]) -> bytes:
    """What is coded in one size, in a container that tells another: decoders decode it, and scale it."""
    data = encoded(Image.new("L", coded), "AVIF")
    size = struct.pack(">II", *coded)
    assert data.count(size) == 1
    return data.replace(size, struct.pack(">II", *told))


_SMALL = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WEBP", "image/avif": "AVIF"}


@pytest.mark.parametrize(
    ("make", "declared"),
    [
        (lambda: _png(9400), "image/png"),
        (_jpeg, "image/jpeg"),
        (_gif, "image/gif"),
        (_webp, "image/webp"),
        (lambda: _avif((5100, 5000), (64, 64)), "image/avif"),
        (lambda: _avif((64, 64), (5100, 5000)), "image/avif"),
    ],
    ids=["png", "jpeg", "gif", "webp", "avif-coded", "avif-told"],
)
def test_too_many_pixels_are_refused_and_use_no_memory(
    tmp_path: Path, make: Callable[[], bytes], declared: str
) -> None:
    file = make()
    assert len(file) < 20_000

    outcome, grown = _outcome(tmp_path, encoded(picture(64, 64), _SMALL[declared]), file, declared)

    assert outcome == "TOO_MANY_PIXELS"
    assert grown < 8


def test_as_many_pixels_as_are_allowed_are_taken_and_show_in_the_measure(tmp_path: Path) -> None:
    outcome, grown = _outcome(tmp_path, _png(64), _png(5000), "image/png")

    assert outcome == "taken"
    assert grown > 16


def test_a_large_jpeg_is_not_decoded_in_full(tmp_path: Path) -> None:
    file = encoded(Image.new("RGB", (3600, 3600), "teal"), "JPEG")

    outcome, grown = _outcome(tmp_path, encoded(picture(64, 64), "JPEG"), file, "image/jpeg")

    assert outcome == "taken"
    # All its pixels take 49.
    assert grown < 30


def test_one_row_of_pixels_more_than_allowed_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (5000, 5001)).save(file, "PNG")

    assert _outcome(tmp_path, _png(64), file.getvalue(), "image/png")[0] == "TOO_MANY_PIXELS"

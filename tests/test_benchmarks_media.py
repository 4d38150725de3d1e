"""The benchmark of images: its short form measures what it says. How fast it is says no test."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import media, report, sizes
from benchmarks.options import Options
from benchmarks.sizes import Size

BRIEFLY = Options(rounds=1, seconds=0.5, warm_up=0.1, pinned=False)
SIZE = Size("tiny", 400, 150, 3_000, 400, star_followers=100, hit_likes=100, readers=((2, 10),))


def test_uploads_and_downloads_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "KEPT", tmp_path / "networks")
    monkeypatch.setattr(media, "BUILD", tmp_path)
    monkeypatch.setattr(media, "PHOTO", (300, 200))
    monkeypatch.setattr(media, "_POSTER", (300, 400))
    said = io.StringIO()
    console = Console(file=said, width=120)

    part = media.of_size(SIZE, BRIEFLY, console)
    (found,) = json.loads(report.save(part, {}, tmp_path).read_text())["media"]["rounds"]
    report.show(part, console)

    assert all(value > 0 for value in found.values())
    assert {verdict.goal.unit for verdict in part.verdicts} == {"x", "ms", "MB", "MB/s"}
    assert "GetPost beside 16 uploads" in said.getvalue()

"""The committed stubs are what the contracts make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DESCRIPTORS = "insta.binpb"


def _files(package: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(package)): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_stubs_in_the_tree_are_those_that_the_contracts_make_now(tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    subprocess.run(
        [sys.executable, "protos/generate.py", tmp_path],
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"},
        check=True,
        timeout=60,
    )

    kept = _files(PROJECT / "insta")
    made = _files(tmp_path / "insta")
    if DESCRIPTORS not in kept:
        # Built, not committed.
        del made[DESCRIPTORS]

    assert len(made) > 1
    assert kept.keys() == made.keys()
    assert [name for name in made if made[name] != kept[name]] == [], "run 'make protos'"

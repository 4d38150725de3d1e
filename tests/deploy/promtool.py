"""The programs of Prometheus that check what it reads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
# Where `make` puts it.
_FETCHED = Path(__file__).parents[2] / "build" / "promtool"


def promtool(*arguments: str) -> str:
    """Run promtool in the folder of the rules. Returns what it says; it must succeed."""
    program = shutil.which("promtool") or (str(_FETCHED) if _FETCHED.exists() else None)
    if program is None:
        pytest.skip("there is no promtool: install Prometheus, or on Debian run: make build/promtool")
    done = subprocess.run((program, *arguments), cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

"""Runs the seeded defects, each in a copy of the tree: `python -m tests.mutants [NAME ...]`.

A mutant is caught if a test that passes without it fails by an assertion. Fails if one survives.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table

from tests.mutants.mutants import MUTANTS, Mutant, mutate

_PROJECT = Path(__file__).parents[2]
_PACKAGES = ("chassis", "gateway", "insta", "services", "suite", "tests")
# A product of the build that no commit has.
_BUILT = "insta/insta.binpb"
# Of the table where there is no terminal: a name of a test fits into its line.
_WIDTH = 220
_TEST_SECONDS = 60
_RUN_SECONDS = 600
# How the message of a failure begins that a test found; any other exception may have nothing to do with the defect.
_FOUND = ("AssertionError", "assert ", "Failed: DID NOT RAISE")
_PASSED, _FAILED = 0, 1


class Outcome(NamedTuple):
    """What came of some tests.

    Attributes:
        code: How pytest exited: 0 if all passed, 1 if some failed, more if it could not run them.
        found: Tests that failed by an assertion.
        otherwise: Of tests that ended in any other way but passing: the first line of what they said.
        output: All that pytest said.
    """

    code: int
    found: Sequence[str]
    otherwise: Sequence[str]
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.code == _PASSED and not self.otherwise

    @property
    def caught(self) -> bool:
        return self.code == _FAILED and bool(self.found)


def main(names: Sequence[str]) -> int:
    """Run the mutants with these names, or all."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
        console.print(f"There is no mutant {', '.join(sorted(unknown))}.")
        return 2
    mutants = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as scratch:
        original = Path(scratch) / "original"
        _copy_tree(original)
        _require_own_code(original)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        console.print(f"Without a defect: {len(tests)} tests ...")
        sound = _run(original, tests)
        if not sound.passed:
            console.print(sound.output, markup=False, highlight=False)
            console.print("They have to pass before a failure can say anything.")
            return 1
        console.print(f"passed in {sound.seconds:.0f} s. With one defect each: {len(mutants)} copies ...")
        begun = time.monotonic()
        outcomes = _outcomes_of(mutants, original)
        seconds = time.monotonic() - begun
    console.print(_table(mutants, outcomes))
    caught = sum(outcome.caught for outcome in outcomes)
    console.print(f"{caught} of {len(mutants)} caught in {seconds:.0f} s.")
    return 0 if caught == len(mutants) else 1


def _copy_tree(target: Path) -> None:
    """Copy the files of the project as they are in the work tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_PROJECT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in (*listed, _BUILT):
        # What was deleted and is not committed is still listed.
        if name and (_PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_PROJECT / name, target / name)


def _environment(tree: Path) -> Mapping[str, str]:
    """With it Python imports the code in a folder, in this process and those that tests start."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("INSTA_", "PYTEST_"))}
    # Comes before what is installed, which is the work tree.
    return {**own, "PYTHONPATH": str(tree)}


def _require_own_code(tree: Path) -> None:
    """Make sure that it is the copy whose code runs, not what is installed, wherever a process works.

    Raises:
        RuntimeError: it is not.
    """
    program = (
        f"import {', '.join(_PACKAGES)}; print(*({', '.join(f'{name}.__file__' for name in _PACKAGES)},), sep='\\n')"
    )
    for folder in (tree, tree.parent):
        said = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder, env=_environment(tree), capture_output=True, text=True, check=True,
        )  # fmt: skip
        for path in said.stdout.split():
            if not Path(path).is_relative_to(tree):
                raise RuntimeError(f"{path} is imported in place of the copy in {tree}")


def _outcomes_of(mutants: Sequence[Mutant], original: Path) -> list[Outcome]:
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as workers:
        runs = [workers.submit(_outcome_of, mutant, original) for mutant in mutants]
        try:
            return [run.result() for run in runs]
        except BaseException:
            # Interrupted, for instance: no other begins.
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome_of(mutant: Mutant, original: Path) -> Outcome:
    tree = original.with_name(mutant.name)
    shutil.copytree(original, tree)
    try:
        mutate(mutant, tree)
        return _run(tree, mutant.tests)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _run(tree: Path, tests: Sequence[str]) -> Outcome:
    report = tree / "report.xml"
    begun = time.monotonic()
    pytest = subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "-q", "--tb=short", f"--timeout={_TEST_SECONDS}",
            f"--basetemp={tree / 'tmp'}", f"--junitxml={report}", *tests,
        ],
        cwd=tree, env=_environment(tree), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = pytest.communicate(timeout=_RUN_SECONDS)
    except subprocess.TimeoutExpired:
        # So it stops the suites that its tests started.
        pytest.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            pytest.wait(_TEST_SECONDS)
        pytest.kill()
        output, _ = pytest.communicate()
    found, otherwise = _read(report) if report.exists() else ([], ["no report"])
    return Outcome(pytest.returncode, found, otherwise, output, time.monotonic() - begun)


def _read(report: Path) -> tuple[list[str], list[str]]:
    """The tests that failed by an assertion, and what the others said that did not pass."""
    found, otherwise = [], []
    for case in ElementTree.parse(report).iter("testcase"):
        for end in case:
            message = end.get("message", "").partition("\n")[0]
            if end.tag == "failure" and message.startswith(_FOUND):
                found.append(f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}")
            elif end.tag in ("failure", "error", "skipped"):
                otherwise.append(f"{end.tag} of {case.get('name')}: {message}")
    return found, otherwise


def _table(mutants: Sequence[Mutant], outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("mutant", no_wrap=True)
    table.add_column("what is not true any more", min_width=40, max_width=60)
    table.add_column("caught by", overflow="fold")
    table.add_column("seconds", justify="right")
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if outcome.caught:
            verdict = "\n".join(outcome.found)
        else:
            verdict = "\n".join(["SURVIVED", f"pytest exited with {outcome.code}", *outcome.otherwise])
        table.add_row(mutant.name, mutant.breaks, verdict.replace("[", "\\["), f"{outcome.seconds:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

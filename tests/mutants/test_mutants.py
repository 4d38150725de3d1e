"""The seeded defects of `make mutants` can be made: what they change is still there, and so are their tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS, Edit, Mutant, mutate

_PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_source_and_names_tests_that_there_are(mutant: Mutant, tmp_path: Path) -> None:
    for edit in mutant.edits:
        (tmp_path / edit.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_PROJECT / edit.file, tmp_path / edit.file)

    mutate(mutant, tmp_path)

    for edit in mutant.edits:
        changed = (tmp_path / edit.file).read_text()
        assert changed != (_PROJECT / edit.file).read_text()
        compile(changed, edit.file, "exec")
    assert mutant.tests
    for test in mutant.tests:
        file, name = re.match(r"([^:]+)::(\w+)", test).groups()
        assert re.search(rf"^(async )?def {name}\(", (_PROJECT / file).read_text(), re.MULTILINE), test


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_whose_text_is_gone_or_there_twice_is_none(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("a\nb\nb\n")

    for old in ("b", "c"):
        with pytest.raises(LookupError, match=r"one\.py"):
            mutate(Mutant("broken", "", [Edit("one.py", old, "d")], []), tmp_path)

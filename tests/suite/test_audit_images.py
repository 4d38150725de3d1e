"""`insta audit`: the store of images has all that the database names, and nothing that it does not know."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from chassis.consistency import BOTTOM
from chassis.settings import from_environment
from suite.audit_images import ImageChecks
from suite.composition import SERVICES
from suite.databases import open_store
from suite.images import store_of_images
from tests.databases import copied
from tests.people import until
from tests.running import running
from tests.suite.auditing import audited, change, differences, read, repaired
from tests.suite.image_store import DAY_SECONDS, leave_unknown, store_of, stored, suite_with_images

BLOBS = "posts: blobs of images"
FOLDERS = "posts: folders of the store"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, str], list[str]]:
    """The environment of a suite that is stopped, and the folders of its images. Tests copy what they change."""
    return suite_with_images(tmp_path_factory.mktemp("made") / "var")


@pytest.fixture
def stopped(made: tuple[Mapping[str, str], list[str]], tmp_path: Path) -> tuple[Mapping[str, str], list[str]]:
    """The same with data of the test's own."""
    given, folders = made
    given = copied(given, tmp_path / "data")
    assert differences(audited(given)) == {}
    return given, folders


def test_blobs_that_are_missing_are_named_and_cannot_be_mended(
    stopped: tuple[Mapping[str, str], list[str]], tmp_path: Path
) -> None:
    given, folders = stopped
    kept = shutil.copytree(store_of(given), tmp_path / "kept")
    shutil.rmtree(store_of(given) / folders[0])
    (store_of(given) / folders[3] / "4.webp").unlink()

    found, mended = audited(given), repaired(given)

    for said in (found, mended):
        assert differences(said) == {BLOBS: 2}
        assert f"{folders[0]}: image 1 in post 1 by user 2 lacks all its blobs" in said.stdout
        assert f"{folders[3]}: image 4 by user 2 lacks 4.webp" in said.stdout
        assert "backup" in said.stdout
    shutil.copytree(kept, store_of(given), dirs_exist_ok=True)
    assert differences(audited(given)) == {}


def test_a_folder_that_nobody_knows_is_found_and_deleted(stopped: tuple[Mapping[str, str], list[str]]) -> None:
    given, folders = stopped
    unknown = leave_unknown(given, 3600)

    found, mended = audited(given), repaired(given)

    assert differences(found) == {FOLDERS: 1}
    assert f"{FOLDERS}: {unknown}" in found.stdout
    assert differences(mended) == {}
    [line] = [json.loads(line) for line in mended.stderr.splitlines() if '"repair: ' in line]
    assert (line["audit"], line["service"], line["count"]) == (True, "posts", 1)
    with running("together", Path(given["INSTA_DATA"]), superuser=False):
        asyncio.run(until(lambda: asyncio.to_thread(lambda: stored(given) == set(folders))))


def test_a_folder_that_has_just_come_is_no_difference(stopped: tuple[Mapping[str, str], list[str]]) -> None:
    given, _ = stopped
    leave_unknown(given, 60)

    assert differences(audited(given)) == {}


def test_a_repair_spares_a_store_that_the_database_knows_little_of(
    stopped: tuple[Mapping[str, str], list[str]],
) -> None:
    given, folders = stopped
    others = {leave_unknown(given, DAY_SECONDS) for _ in range(6)}

    mended = repaired(given)

    assert differences(mended) == {FOLDERS: 6}
    assert "insta media gc --force" in mended.stdout
    assert stored(given) == {*folders, *others}
    assert read(given, "posts", "SELECT folder FROM discard") == []


def test_what_has_gone_when_it_is_looked_at_again_was_on_its_way(
    stopped: tuple[Mapping[str, str], list[str]],
) -> None:
    given, folders = stopped
    settings = from_environment(given)
    going, lost, *_ = folders
    for folder in (going, lost):
        shutil.rmtree(store_of(given) / folder)
    old, gone = leave_unknown(given, DAY_SECONDS), leave_unknown(given, DAY_SECONDS)
    with closing(open_store(settings, SERVICES["posts"])) as store, store_of_images(settings) as blobs:
        of_blobs, of_folders = ImageChecks(store, blobs, "here").checks()

        first = of_blobs.page(BOTTOM), of_folders.page(BOTTOM)
        change(given, "posts", f"DELETE FROM media WHERE folder = '{going}'")
        shutil.rmtree(store_of(given) / gone)
        second = of_blobs.remaining(first[0].suspicious), of_folders.remaining(first[1].suspicious)

    assert [(page.size, len(page.suspicious), page.above) for page in first] == [(5, 2, None), (5, 2, None)]
    assert second == ([2], [old])

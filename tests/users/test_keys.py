"""The life of a signing key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chassis import clock, identity
from chassis.store import Store
from services.users import keys
from services.users import service as users
from tests import databases
from tests.people import People
from tests.running import RunningSuite, insta_here


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    assert users.SERVICE.migrations is not None
    opened = databases.open_store(tmp_path / "users.db", users.SERVICE.migrations)
    opened.write_now(keys.ensure)
    yield opened
    opened.close()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets seconds pass."""
    passed = 0
    now = clock.now

    def wait(seconds: int) -> None:
        nonlocal passed
        passed += seconds * 1_000_000

    monkeypatch.setattr(clock, "now", lambda: now() + passed)
    return wait


def test_a_new_key_is_published_before_it_signs(store: Store, pass_time: Callable[[int], None]) -> None:
    old = store.write_now(keys.signer)

    new = store.write_now(keys.rotate)

    assert {key.kid for key in store.write_now(keys.published)} == {old.kid, new.kid}
    assert store.write_now(keys.signer).kid == old.kid
    pass_time(keys.LEAD_MICROS // 1_000_000 + 1)
    assert store.write_now(keys.signer).kid == new.kid


def test_an_old_key_is_published_until_what_it_signed_has_expired(
    store: Store, pass_time: Callable[[int], None]
) -> None:
    old = store.write_now(keys.signer)
    new = store.write_now(keys.rotate)
    # The last token of the old key is issued just before the new one takes over.
    pass_time(keys.LEAD_MICROS // 1_000_000 + identity.LIFETIME_SECONDS - 1)
    assert old.kid in {key.kid for key in store.write_now(keys.published)}

    pass_time(120)

    assert [key.kid for key in store.write_now(keys.published)] == [new.kid]


def test_a_retired_key_is_forgotten_at_the_next_rotation(store: Store, pass_time: Callable[[int], None]) -> None:
    old = store.write_now(keys.signer)
    store.write_now(keys.rotate)
    pass_time(2 * identity.LIFETIME_SECONDS)

    store.write_now(keys.rotate)

    stored = store.write_now(lambda db: db.execute_sql("SELECT kid FROM signing_key").fetchall())
    assert (old.kid,) not in stored
    assert len(stored) == 2


async def test_a_rotation_ends_no_session(together: RunningSuite) -> None:
    people = People(together.address)
    pat = await people.join()

    rotated = insta_here("keys", "rotate", environment=together.environment)

    assert rotated.returncode == 0, rotated.stderr
    post = await pat.post()
    assert (await (await people.join()).see(post)).id == post.id
    await people.channel.close()

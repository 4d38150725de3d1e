"""`insta audit`: what the services have stored agrees, and what does not is found and mended."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.people import People
from tests.running import MODES, ON_POSTGRESQL, RunningSuite, environment, insta, running
from tests.suite.auditing import audited, change, differences, read, repaired
from tests.suite.crowds import leave, use

CLIENTS = 8
# Ids that nothing has: others each time, as what is mended once is known to be gone.
_unused = itertools.count(900_001)


async def live(address: str) -> None:
    """Have people use a suite, of whom one leaves."""
    people = People(address)
    *_, last = await use(people, CLIENTS)
    await leave(last)
    await people.channel.close()


def wait_for_erasure(environment: Mapping[str, str]) -> None:
    """Wait until nothing is left of the one who left, and of their post."""
    erased = "SELECT kind FROM tombstone WHERE erased ORDER BY kind"
    while read(environment, "social", erased) != [("post",), ("user",)]:
        time.sleep(0.01)


@pytest.fixture(scope="module", params=MODES)
def used(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A running suite of these tests' own, in each of the ways to run one: others leave nothing under way."""
    with running(request.param, tmp_path_factory.mktemp("used") / "var") as suite:
        yield suite


@contextmanager
def used_and_running(data: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a running suite that people used."""
    with running("together", data) as suite, ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, live(suite.address)).result()
        wait_for_erasure(suite.environment)
        yield suite.environment


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a suite that people used, that was stopped, and whose databases may be damaged."""
    with used_and_running(tmp_path_factory.mktemp("damaged") / "var") as given:
        pass
    assert differences(audited(given)) == {}
    return given


async def test_nothing_differs_after_people_used_the_suite(used: RunningSuite) -> None:
    people = People(used.address)
    *_, last = await use(people, CLIENTS)
    await leave(last)

    assert differences(audited(used.environment)) == {}

    await people.channel.close()


async def test_nothing_differs_while_people_write_and_delete_their_accounts(used: RunningSuite) -> None:
    people = People(used.address)
    done = asyncio.Event()

    async def come_and_go() -> int:
        left = 0
        while not done.is_set():
            for member in await use(people, 2):
                await leave(member)
                left += 1
        return left

    living = [asyncio.create_task(come_and_go()) for _ in range(CLIENTS // 2)]
    try:
        audits = [await asyncio.to_thread(audited, used.environment) for _ in range(3)]
    finally:
        done.set()
        left = await asyncio.gather(*living)
    await people.channel.close()

    assert [differences(said) for said in audits] == [{}, {}, {}]
    assert min(left) > 0
    assert differences(audited(used.environment)) == {}


_SOMEBODY = "(SELECT MIN(followee_id) FROM follow)"
_SOMETHING = "(SELECT MIN(post_id) FROM comment)"
_GONE = "(SELECT MAX(gone_id) FROM tombstone WHERE kind = 'user')"
_GONE_POST = "(SELECT MAX(gone_id) FROM tombstone WHERE kind = 'post')"


def _bytes(number: int) -> str:
    return f"'\\x{number:08x}'::bytea" if ON_POSTGRESQL else f"x'{number:08x}'"


def _like(user_id: object, post_id: object) -> str:
    return f'INSERT INTO "like" (user_id, post_id, create_time) VALUES ({user_id}, {post_id}, 1)'


def _comment(author_id: object, post_id: object) -> str:
    columns = "author_id, post_id, text, create_time, update_time"
    return f"INSERT INTO comment ({columns}) VALUES ({author_id}, {post_id}, '', 1, 1)"


def _follow(follower_id: object, followee_id: object) -> str:
    return f"INSERT INTO follow (follower_id, followee_id, create_time) VALUES ({follower_id}, {followee_id}, 1)"


def _reply(caller_id: object) -> str:
    columns = "caller_id, about_id, method, request_id, request_mac, response, create_time"
    return f"INSERT INTO reply ({columns}) VALUES ({caller_id}, {caller_id}, 'x', 'x', {_bytes(0)}, {_bytes(0)}, 1)"


def _session(user_id: object) -> str:
    columns = "id, user_id, family_hash, token_hash, client_name, address, create_time, use_time, expire_time"
    unique = next(_unused)
    values = f"'{unique}', {user_id}, {_bytes(unique)}, {_bytes(unique)}, '', '', 1, 1, 9000000000000000"
    return f"INSERT INTO session ({columns}) VALUES ({values})"


_POST = (
    "INSERT INTO post (author_id, title, description, image_urls, create_time, update_time)"
    " VALUES ({}, '', '', '[]', 1, 1)"
)
# What is changed in which database, and how many differences of what kind are then found.
DAMAGES: dict[str, tuple[str, str, dict[str, int]]] = {
    "a counter of posts that is too high": (
        "posts",
        "UPDATE author_counter SET post_count = post_count + 1 WHERE author_id = (SELECT MIN(author_id) FROM post)",
        {"posts: author_counter.post_count": 1},
    ),
    "all counters of posts gone": (
        "posts",
        "DELETE FROM author_counter",
        {"posts: author_counter.post_count": CLIENTS - 1},
    ),
    "a counter of likes that is too low": (
        "social",
        f"UPDATE post_counter SET like_count = like_count - 1 WHERE post_id = {_SOMETHING}",
        {"social: post_counter.like_count": 1},
    ),
    "a negative counter of comments": (
        "social",
        f"UPDATE post_counter SET comment_count = -5 WHERE post_id = {_SOMETHING}",
        {"social: post_counter.comment_count": 1},
    ),
    "the counters of a person gone": (
        "social",
        f"DELETE FROM user_counter WHERE user_id = {_SOMEBODY}",
        {"social: user_counter.follower_count": 1, "social: user_counter.followee_count": 1},
    ),
    "a post by nobody": (
        "posts",
        _POST.format(next(_unused)),
        {"posts: post.author_id: user does not exist": 1, "posts: author_counter.post_count": 1},
    ),
    "a like by nobody": (
        "social",
        _like(next(_unused), _SOMETHING),
        {"social: like.user_id: user does not exist": 1, "social: post_counter.like_count": 1},
    ),
    "a like of nothing": (
        "social",
        _like(_SOMEBODY, next(_unused)),
        {"social: like.post_id: post does not exist": 1, "social: post_counter.like_count": 1},
    ),
    "a comment by nobody on nothing": (
        "social",
        _comment(next(_unused), next(_unused)),
        {
            "social: comment.author_id: user does not exist": 1,
            "social: comment.post_id: post does not exist": 1,
            "social: post_counter.comment_count": 1,
        },
    ),
    "a follow by nobody": (
        "social",
        _follow(next(_unused), _SOMEBODY),
        {
            "social: follow.follower_id: user does not exist": 1,
            "social: user_counter.follower_count": 1,
            "social: user_counter.followee_count": 1,
        },
    ),
    "a follow of nobody": (
        "social",
        _follow(_SOMEBODY, next(_unused)),
        {
            "social: follow.followee_id: user does not exist": 1,
            "social: user_counter.follower_count": 1,
            "social: user_counter.followee_count": 1,
        },
    ),
    "a session of nobody": (
        "users",
        _session(next(_unused)),
        {"users: session.user_id: user does not exist": 1},
    ),
    "a session of somebody who is gone": (
        "users",
        _session(_GONE),
        {"users: user gone and erased: rows left": 1},
    ),
    "a like by somebody who is gone": (
        "social",
        _like(_GONE, _SOMETHING),
        {"social: user gone and erased: rows left": 1, "social: post_counter.like_count": 1},
    ),
    "a comment on a post that is gone": (
        "social",
        _comment(_SOMEBODY, _GONE_POST),
        {"social: post gone and erased: rows left": 1, "social: post_counter.comment_count": 1},
    ),
    "an answer kept for somebody who is gone": (
        "posts",
        _reply(_GONE),
        {"posts: user gone and erased: rows left": 1},
    ),
    "a post by somebody who is gone": (
        "posts",
        _POST.format(_GONE),
        {"posts: user gone and erased: rows left": 1, "posts: author_counter.post_count": 1},
    ),
    "a tombstone of somebody who exists": (
        "social",
        f"INSERT INTO tombstone (kind, gone_id, erased) VALUES ('user', {_SOMEBODY}, TRUE)",
        {"social: user gone: still exists": 1},
    ),
    "a tombstone of a post that exists": (
        "social",
        f"INSERT INTO tombstone (kind, gone_id, erased) VALUES ('post', {_SOMETHING}, TRUE)",
        {"social: post gone: still exists": 1},
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_mended(damaged: Mapping[str, str], damage: str) -> None:
    service, statement, expected = DAMAGES[damage]
    before = rows(damaged)
    change(damaged, service, statement)

    found = audited(damaged)
    mended = repaired(damaged)

    assert differences(found) == expected
    for check, count in expected.items():
        [line] = [line for line in found.stdout.splitlines() if line.startswith(f"{check}: ")]
        assert len(re.findall(r"\d+", line.removeprefix(check))) == min(count, 6)
    assert mended.code == 0, mended
    assert differences(mended) == {}
    recorded = [json.loads(line) for line in mended.stderr.splitlines() if '"repair: ' in line]
    assert all(line["audit"] for line in recorded)
    assert sum(line["count"] for line in recorded) == sum(expected.values())
    assert differences(audited(damaged)) == {}
    # What was right before stays, and nothing else does.
    assert rows(damaged) == before


def test_all_damage_together_is_found_and_mended_while_the_suite_runs(tmp_path: Path) -> None:
    with used_and_running(tmp_path / "var") as given:
        before = rows(given)
        for service, statement, _ in DAMAGES.values():
            change(given, service, statement)

        found = audited(given)
        mended = repaired(given)

        assert differences(found).keys() == {check for *_, expected in DAMAGES.values() for check in expected}
        assert differences(mended) == {}
        assert differences(audited(given)) == {}
        assert rows(given) == before


@pytest.fixture
def stopped(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a suite that people used, and that was stopped."""
    with used_and_running(tmp_path / "var") as given:
        pass
    return given


def test_rows_of_somebody_with_a_tombstone_by_mistake_stay(stopped: Mapping[str, str]) -> None:
    before = rows(stopped)
    # Nothing is erased yet, and would be at the next start.
    change(stopped, "social", f"INSERT INTO tombstone (kind, gone_id, erased) VALUES ('user', {_SOMEBODY}, FALSE)")
    change(stopped, "social", f"INSERT INTO tombstone (kind, gone_id, erased) VALUES ('post', {_SOMETHING}, FALSE)")

    mended = repaired(stopped)

    assert differences(mended) == {}
    assert rows(stopped) == before


def test_an_account_that_vanished_without_an_event_is_erased_everywhere(stopped: Mapping[str, str]) -> None:
    change(stopped, "users", 'DELETE FROM "user" WHERE id = (SELECT MAX(user_id) FROM session)')

    found, mended = audited(stopped), repaired(stopped)

    assert differences(found) == {
        "users: session.user_id: user does not exist": 1,
        "posts: post.author_id: user does not exist": 1,
        "social: like.user_id: user does not exist": 1,
        "social: comment.author_id: user does not exist": 1,
        "social: follow.follower_id: user does not exist": 1,
        "social: follow.followee_id: user does not exist": 1,
    }
    assert differences(mended) == {}
    assert differences(audited(stopped)) == {}


@pytest.mark.parametrize(
    "damage",
    [
        'UPDATE cursor SET "offset" = "offset" + 1000 WHERE log = \'users\'',
        "UPDATE cursor SET epoch = 'another' WHERE log = 'users'",
        'UPDATE cursor SET "offset" = "offset" - 1 WHERE log = \'users\'',
        "DELETE FROM cursor WHERE log = 'users'",
    ],
)
def test_a_cursor_that_is_not_at_the_head_of_its_log_is_found_and_moves_on(
    stopped: Mapping[str, str], damage: str
) -> None:
    change(stopped, "social", damage)

    found, mended = audited(stopped), repaired(stopped)

    assert differences(found) == {"social: log of users: read to its head": 1}
    assert differences(mended) == {}
    assert differences(audited(stopped)) == {}


def test_what_is_still_to_be_erased_is_no_difference_of_its_own_while_the_suite_runs(
    stopped: Mapping[str, str],
) -> None:
    # Somebody was deleted a moment before the stop.
    change(stopped, "posts", f"UPDATE tombstone SET erased = FALSE WHERE gone_id = {_GONE}")
    assert differences(audited(stopped)) == {"posts: user gone: still to be erased": 1}

    with running("together", Path(stopped["INSTA_DATA"]), superuser=False):
        assert differences(audited(stopped)) == {}


@pytest.mark.sqlite
def test_a_damaged_file_is_found_and_left_as_it_is(stopped: Mapping[str, str]) -> None:
    path = Path(stopped["INSTA_DATA"]) / "social.db"
    [(page,)] = read(stopped, "social", "SELECT rootpage FROM sqlite_master WHERE name = 'comment_post_id'")
    [(size,)] = read(stopped, "social", "PRAGMA page_size")
    assert isinstance(page, int)
    assert isinstance(size, int)
    damaged = bytearray(path.read_bytes())
    damaged[page * size - 64 : page * size] = bytes(64)
    path.write_bytes(damaged)

    found, mended = audited(stopped), repaired(stopped)

    assert differences(found).keys() == {"social: integrity_check, foreign_key_check"}
    assert mended.code == 1
    assert "insta restore" in mended.stderr
    assert path.read_bytes() == damaged


@pytest.mark.sqlite
def test_without_databases_there_is_nothing_to_compare(tmp_path: Path) -> None:
    said = insta("audit", environment=environment(tmp_path))

    assert said.returncode == 1
    assert "INSTA_DATA" in said.stderr
    assert list(tmp_path.iterdir()) == []


def rows(environment: Mapping[str, str]) -> dict[str, object]:
    """All that people see: rows, and what is counted of them."""
    return {
        table: sorted(read(environment, service, f"SELECT {columns} FROM {table}"))
        for service, table, columns in (
            ("users", '"user"', "id, username"),
            ("users", "session", "id"),
            ("posts", "post", "id, author_id"),
            ("posts", "author_counter", "author_id, post_count"),
            ("social", '"like"', "user_id, post_id"),
            ("social", "comment", "id, author_id, post_id"),
            ("social", "follow", "follower_id, followee_id"),
            ("social", "post_counter", "post_id, like_count, comment_count"),
            ("social", "user_counter", "user_id, follower_count, followee_count"),
        )
    }

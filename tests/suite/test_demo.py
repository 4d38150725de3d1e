"""`insta demo`: a made-up network, straight into the databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chassis import validation
from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2
from suite.main import main
from tests.people import People
from tests.running import environment, insta, running
from tests.suite.demos import PASSWORD, SIZES, demo, everything, rows

COUNTS = {
    "like_count": 'SELECT post_id, count(*) FROM "like" GROUP BY post_id',
    "comment_count": "SELECT post_id, count(*) FROM comment GROUP BY post_id",
    "follower_count": "SELECT followee_id, count(*) FROM follow GROUP BY followee_id",
    "followee_count": "SELECT follower_id, count(*) FROM follow GROUP BY follower_id",
}


def assert_exact_counters(data: Path) -> None:
    for column, count in COUNTS.items():
        table, key = (
            ("post_counter", "post_id") if column in ("like_count", "comment_count") else ("user_counter", "user_id")
        )
        counted = rows(data, "social", f"SELECT {key}, {column} FROM {table} WHERE {column} != 0")
        assert sorted(counted) == sorted(rows(data, "social", count)), column
    counted = rows(data, "posts", "SELECT author_id, post_count FROM author_counter WHERE post_count != 0")
    assert sorted(counted) == sorted(rows(data, "posts", "SELECT author_id, count(*) FROM post GROUP BY author_id"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was filled once, for tests that only read it."""
    data = tmp_path_factory.mktemp("filled") / "var"
    done = demo(data, *SIZES)
    assert done.returncode == 0, done.stderr
    return data


def test_the_same_seed_and_sizes_make_the_same_network(filled: Path, tmp_path: Path) -> None:
    demo(tmp_path, *SIZES)

    assert everything(tmp_path) == everything(filled)


def test_another_seed_makes_another_network(filled: Path, tmp_path: Path) -> None:
    demo(tmp_path, *SIZES, "--seed", "2")

    assert everything(tmp_path).keys() == everything(filled).keys()
    assert all(
        everything(tmp_path)[table] != everything(filled)[table]
        for table in ("users.user", "posts.post", "social.like", "social.comment", "social.follow")
    )


def test_as_many_rows_are_made_as_were_asked_for(filled: Path) -> None:
    made = everything(filled)

    assert [len(made[f"{table}"]) for table in ("users.user", "posts.post")] == [40, 60]
    assert [len(made[f"social.{table}"]) for table in ("like", "comment", "follow")] == [300, 120, 200]


def test_counters_are_exact(filled: Path) -> None:
    assert_exact_counters(filled)


def test_nobody_follows_themselves_and_all_rows_belong_to_somebody(filled: Path) -> None:
    people = {row[0] for row in rows(filled, "users", 'SELECT id FROM "user"')}
    posts = {row[0] for row in rows(filled, "posts", "SELECT id FROM post")}

    assert rows(filled, "social", "SELECT 1 FROM follow WHERE follower_id = followee_id") == []
    for database, query in (
        ("posts", "SELECT author_id FROM post"),
        ("social", 'SELECT user_id FROM "like"'),
        ("social", "SELECT author_id FROM comment"),
        ("social", "SELECT follower_id FROM follow"),
        ("social", "SELECT followee_id FROM follow"),
    ):
        assert {row[0] for row in rows(filled, database, query)} <= people, query
    for query in ('SELECT post_id FROM "like"', "SELECT post_id FROM comment"):
        assert {row[0] for row in rows(filled, "social", query)} <= posts, query


def test_nothing_happens_before_what_it_is_about_or_outside_its_year(filled: Path) -> None:
    joined = dict(rows(filled, "users", 'SELECT id, create_time FROM "user"'))
    posted = dict(rows(filled, "posts", "SELECT id, create_time FROM post"))
    times = [*joined.values(), *posted.values()]
    likes = rows(filled, "social", 'SELECT user_id, post_id, create_time FROM "like"')
    comments = rows(filled, "social", "SELECT author_id, post_id, create_time FROM comment")
    for who, post, when in [*likes, *comments]:
        assert when >= max(joined[who], posted[post])
        times.append(when)
    for who, whom, when in rows(filled, "social", "SELECT follower_id, followee_id, create_time FROM follow"):
        assert when >= max(joined[who], joined[whom])
        times.append(when)
    for author, post in rows(filled, "posts", "SELECT author_id, id FROM post"):
        assert posted[post] >= joined[author]

    new_year_2025, new_year_2026 = 1_735_689_600_000_000, 1_767_225_600_000_000
    assert new_year_2025 <= min(times)
    assert max(times) <= new_year_2026


def test_what_is_made_keeps_the_rules_of_the_contract(tmp_path: Path) -> None:
    sizes = ("--users", "1500", "--posts", "1500", "--likes", "0", "--comments", "1500", "--follows", "0")
    demo(tmp_path, *sizes, "--pictures", "0")

    people = rows(tmp_path, "users", 'SELECT username, email, first_name, last_name, bio FROM "user"')
    for username, email, first_name, last_name, bio in people:
        validation.check(
            accounts_pb2.RegisterRequest(
                username=username, email=email, password=PASSWORD, first_name=first_name, last_name=last_name, bio=bio
            )
        )
    for title, description, image_urls in rows(tmp_path, "posts", "SELECT title, description, image_urls FROM post"):
        post = posts_pb2.CreatePostRequest(title=title, description=description, image_urls=json.loads(image_urls))
        validation.check(post)
    for (text,) in rows(tmp_path, "social", "SELECT text FROM comment"):
        validation.check(posts_pb2.CreateCommentRequest(post_id=1, text=text))
    assert len(people) == 1500


@pytest.mark.parametrize(
    ("sizes", "option"),
    [
        (("--users", "0"), "--posts"),
        (("--users", "3", "--posts", "2", "--likes", "7", "--comments", "0", "--follows", "0"), "--likes"),
        (("--users", "3", "--follows", "7", "--likes", "0"), "--follows"),
        (("--posts", "0", "--likes", "0"), "--comments"),
        (("--users", "3", "--posts", "2", "--likes", "0", "--follows", "0", "--pictures", "10"), "--pictures"),
        (("--password", "short"), "password"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, sizes: tuple[str, ...], option: str) -> None:
    refused = CliRunner(env=environment(tmp_path / "var")).invoke(main, ["demo", *sizes])

    assert isinstance(refused.exception, SystemExit)
    assert refused.exit_code in (1, 2)
    assert option in refused.stderr
    assert not (tmp_path / "var").exists()


def test_everybody_may_like_every_post_and_follow_everybody(tmp_path: Path) -> None:
    sizes = ("--users", "12", "--posts", "9", "--likes", str(12 * 9), "--comments", "9", "--follows", str(12 * 11))
    made = demo(tmp_path, *sizes, "--pictures", "0")

    assert made.returncode == 0, made.stderr
    assert rows(tmp_path, "social", 'SELECT count(*) FROM "like"') == [(12 * 9,)]
    assert rows(tmp_path, "social", "SELECT count(*) FROM follow") == [(12 * 11,)]
    assert_exact_counters(tmp_path)


def test_an_empty_network_can_be_made(tmp_path: Path) -> None:
    made = demo(tmp_path, "--users", "0", "--posts", "0", "--likes", "0", "--comments", "0", "--follows", "0")

    assert made.returncode == 0, made.stderr
    assert not any(everything(tmp_path).values())


@pytest.mark.sqlite
def test_a_data_folder_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "users.db").write_text("not a database" * 1000)

    for data in (tmp_path / "file", tmp_path / "var"):
        refused = demo(data, *SIZES)

        assert refused.returncode == 1
        assert str(data) in refused.stderr
        assert "Traceback" not in refused.stderr


async def test_a_demo_on_a_running_suite_is_there_at_once_and_another_adds_to_it(tmp_path: Path) -> None:
    data = tmp_path / "var"
    with running("together", data) as suite:
        people = People(suite.address)
        try:
            ana = await people.join()
            own = await ana.post()
            outcomes = [insta("demo", *SIZES, "--password", PASSWORD, environment=suite.environment) for _ in range(2)]
            assert [outcome.returncode for outcome in outcomes] == [0, 0], outcomes
            usernames = [row[0] for row in rows(data, "users", 'SELECT username FROM "user" ORDER BY id')]
            dora = await people.log_in(str(usernames[-1]), PASSWORD)

            profiles = [
                (await dora.profiles.GetProfile(profiles_pb2.GetProfileRequest(username=name))).profile
                for name in usernames
            ]
            await dora.posts.LikePost(posts_pb2.LikePostRequest(post_id=own.id))
            liked = await ana.see(own)
        finally:
            await people.channel.close()

    # Beside the demo people there are the superuser and Ana.
    assert len({name.casefold() for name in usernames}) == 2 * 40 + 2
    assert sum(profile.follower_count for profile in profiles) == 2 * 200
    assert sum(profile.following_count for profile in profiles) == 2 * 200
    assert sum(profile.post_count for profile in profiles) == 2 * 60 + 1
    assert liked.like_count == 1
    assert_exact_counters(data)

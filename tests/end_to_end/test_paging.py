"""Pages of every list of the public API: complete, without repetition, and only for who asked for them."""

from __future__ import annotations

import asyncio
import base64
import string

import grpc
import pytest

from insta.gateway.v1 import admin_pb2, posts_pb2, profiles_pb2
from tests.end_to_end import lists
from tests.people import People, Person, failure

_ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"

each_list = pytest.mark.parametrize("kind", lists.ALL)


@each_list
async def test_a_page_is_full_unless_it_is_the_last(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    rows = await listing.fill(6)

    for size in (1, 2, 3, 4, 6, 7, 0):
        step = size or 20
        assert await listing.pages(size) == [rows[start : start + step] for start in range(0, 6, step)]


@each_list
async def test_an_empty_list_is_one_empty_page(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)

    assert await listing.page(1) == ([], "")


@each_list
async def test_the_page_size_may_change_from_page_to_page(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    rows = await listing.fill(6)

    first = await listing.page(1)
    second = await listing.page(3, first.token)
    third = await listing.page(0, second.token)

    assert [first.ids, second.ids, third.ids] == [rows[:1], rows[1:4], rows[4:]]
    assert third.token == ""


@each_list
async def test_a_token_answers_the_same_page_as_often_as_it_is_sent(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    await listing.fill(5)
    first = await listing.page(2)

    assert await listing.page(2, first.token) == await listing.page(2, first.token)


@each_list
async def test_rows_that_come_and_go_between_pages_repeat_none_and_skip_none(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    rows = await listing.fill(7)
    first = await listing.page(2)

    # The row that the token stands on, one that was not seen yet, and new ones at the front.
    await listing.remove(rows[1])
    await listing.remove(rows[3])
    await listing.fill(2)
    second = await listing.page(2, first.token)
    await listing.remove(rows[4])
    third = await listing.page(2, second.token)

    assert [first.ids, second.ids, third.ids] == [rows[:2], [rows[2], rows[4]], rows[5:]]
    assert third.token == ""


@each_list
async def test_a_token_after_which_all_rows_were_removed_leads_to_an_empty_last_page(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    rows = await listing.fill(3)
    first = await listing.page(1)

    for row in rows:
        await listing.remove(row)

    assert await listing.page(1, first.token) == ([], "")


@each_list
async def test_a_token_is_good_for_its_own_arguments_and_caller_only(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    await listing.fill(2)
    token = (await listing.page(1)).token

    failures = [await failure(listing.page(1, token, reader=listing.other_reader))]
    if listing.other_request is not None:
        failures.append(await failure(listing.page(1, token, request=listing.other_request)))

    for failed in failures:
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
        assert failed.fields == ["page_token"]
    assert (await listing.page(1, token)).ids


async def test_a_token_is_good_for_no_other_list(people: People, boss: Person) -> None:
    ana, friends = await people.join(), [await people.join() for _ in range(2)]
    posts = [await ana.post() for _ in range(2)]
    for friend in friends:
        await friend.follow(ana)
        await ana.follow(friend)
        await friend.like(posts[0])
        await friend.comment(posts[0])
    # Of the same person and of the same post, so that it is the list alone that makes the difference.
    asked = [
        (boss.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=ana.id)),
        (boss.profiles.ListFollowers, profiles_pb2.ListFollowersRequest(user_id=ana.id)),
        (boss.profiles.ListFollowing, profiles_pb2.ListFollowingRequest(user_id=ana.id)),
        (boss.posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=posts[0].id)),
        (boss.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=posts[0].id)),
        (boss.admin.ListUsers, admin_pb2.ListUsersRequest()),
    ]

    tokens = []
    for call, request in asked:
        request.page_size = 1
        tokens.append((await call(request)).next_page_token)

    assert all(tokens)
    for position, (call, request) in enumerate(asked):
        for other, token in enumerate(tokens):
            if other != position:
                request.page_token = token
                failed = await failure(call(request))
                assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


@each_list
async def test_a_token_that_was_not_issued_is_refused(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    await listing.fill(2)
    token = (await listing.page(1)).token
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    flipped = [
        base64.urlsafe_b64encode(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]).decode().rstrip("=")
        for place in range(len(raw))
    ]
    forged = [
        *flipped,
        token[:-1],
        token[: len(token) // 2],
        token[4:],
        token + "AAAA",
        token[::-1],
        token.lower() if token.lower() != token else token.upper(),
        " ",
        "=",
        "A",
        "0",
        "20",
        "null",
        base64.urlsafe_b64encode(bytes(range(100, 120))).decode(),
        base64.urlsafe_b64encode(bytes(8)).decode(),
        base64.urlsafe_b64encode(b"").decode() + "====",
        "naïve",
        "\N{FULLWIDTH DIGIT ONE}",
        "\x00",
        "'; DROP TABLE post; --",
    ]

    failures = await asyncio.gather(*(failure(listing.page(1, bad)) for bad in forged))

    for bad, failed in zip(forged, failures, strict=True):
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"), bad
        assert failed.fields == ["page_token"], bad


@each_list
async def test_a_token_has_one_spelling(people: People, kind: str) -> None:
    listing = await lists.ALL[kind](people)
    await listing.fill(2)
    token = (await listing.page(1)).token
    # The last of its characters holds two bits that stand for nothing.
    last = _ALPHABET.index(token[-1])
    respelled = [token[:-1] + _ALPHABET[last ^ bit] for bit in (1, 2)]

    for bad in (*respelled, token + "=", token[:9] + "!!!!" + token[9:], token[:9] + "\n\n\n\n" + token[9:]):
        assert (await failure(listing.page(1, bad))).reason == "INVALID_PAGE_TOKEN", bad

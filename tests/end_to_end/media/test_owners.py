"""Whose images are: who sees and changes them, and what becomes of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from insta.gateway.v1 import posts_pb2
from tests import databases
from tests.deletions import delete_account, delete_post, erased, erasure_of
from tests.end_to_end.media.calls import (
    MEDIA_IN_USE,
    MEDIA_NOT_FOUND,
    NOBODYS,
    NOT_OWNER,
    change_media,
    delete,
    describe,
    read,
    refused_upload,
    show_as_avatar,
    shown,
    told,
)
from tests.images import (
    download,
    held_for,
    load,
    no_longer_loaded,
    nothing_kept,
    nothing_lost,
    rows_of,
)
from tests.people import Failure, People, Person, failure, until
from tests.running import RunningSuite

# Of whom images are.


def calls_for(person: Person, media_id: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """All that can be done with an image that exists."""
    return {
        "get": lambda: read(person, media_id),
        "download": lambda: download(person, media_id),
        "update": lambda: describe(person, media_id, "Mine"),
        "delete": lambda: delete(person, media_id),
        "post": lambda: person.post(media_ids=[media_id]),
        "avatar": lambda: show_as_avatar(person, media_id),
    }


async def test_an_image_that_nothing_shows_is_to_others_as_if_it_were_not_there(ana: Person, ben: Person) -> None:
    media = await ana.upload(alt_text="Hers")
    nothing = calls_for(ben, NOBODYS)

    for name, call in calls_for(ben, media.id).items():
        hidden, missing = await failure(call()), await failure(nothing[name]())
        assert told(hidden) == told(missing) == MEDIA_NOT_FOUND, name
        assert hidden.text.replace(str(media.id), str(NOBODYS)) == missing.text
    assert await read(ana, media.id) == media
    assert (await ben.profile(ben)).post_count == 0


@pytest.mark.parametrize("place", ["post", "avatar"])
async def test_an_image_that_is_shown_is_seen_by_others_and_changed_by_its_owner_only(
    ana: Person, ben: Person, place: str
) -> None:
    media = await ana.upload(alt_text="Hers")
    await (ana.post(media_ids=[media.id]) if place == "post" else show_as_avatar(ana, media.id))
    calls = calls_for(ben, media.id)

    assert await calls.pop("get")() == media
    assert (await calls.pop("download")()).variant == media.variants[0]
    for name, call in calls.items():
        assert told(await failure(call())) == NOT_OWNER, name
    assert await read(ana, media.id) == media


async def test_images_take_a_token(people: People, ana: Person) -> None:
    media = await ana.upload()
    await ana.post(media_ids=[media.id])
    for name, call in {**calls_for(people.stranger, media.id), "upload": people.stranger.upload}.items():
        failed = await failure(call())
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"), name


# What becomes of images.


async def test_a_deleted_image_is_gone_at_once_and_soon_from_http(ana: Person) -> None:
    media = await ana.upload()

    await delete(ana, media.id)

    for call in calls_for(ana, media.id).values():
        assert told(await failure(call())) == MEDIA_NOT_FOUND
    await no_longer_loaded(media)


@pytest.mark.inside
async def test_a_deleted_post_takes_its_images_with_it(suite: RunningSuite, ana: Person, ben: Person) -> None:
    media, kept = await ana.upload(), await ana.upload()
    post = await ana.post(media_ids=[media.id])
    await ana.post(media_ids=[kept.id])

    await delete_post(ana, post)

    for person in (ana, ben):
        for call in calls_for(person, media.id).values():
            assert told(await failure(call())) == MEDIA_NOT_FOUND
    await no_longer_loaded(media)
    assert load(kept.variants[0].url).status == 200

    async def remains() -> tuple[int, int]:
        return rows_of(suite, ana), held_for(suite, ana)

    await until(remains, (1, 0))
    await nothing_lost(suite)


@pytest.mark.inside
async def test_a_deleted_account_takes_its_images_with_it(
    suite: RunningSuite, ana: Person, ben: Person, boss: Person
) -> None:
    unused, avatar, in_post = [await ana.upload() for _ in range(3)]
    await show_as_avatar(ana, avatar.id)
    await ana.post(media_ids=[in_post.id])
    before = {answer.service: dict(answer.left) for answer in (await erasure_of(boss, ana.id)).services}

    await delete_account(ana)
    await erased(boss, ana.id)

    assert before["posts"]["media"] == 3
    after = {answer.service: dict(answer.left) for answer in (await erasure_of(boss, ana.id)).services}
    assert (after["posts"]["media"], after["posts"]["blobs"]) == (0, 0)
    for media in (unused, avatar, in_post):
        assert told(await failure(read(ben, media.id))) == MEDIA_NOT_FOUND
        assert {load(variant.url).status for variant in media.variants} == {404}
    await nothing_kept(suite, ana)


async def upload_until_gone(person: Person) -> Failure:
    while True:
        failed = Failure(await refused_upload(person))
        if failed.reason != "UPLOADS_BUSY":
            return failed


@pytest.mark.inside
async def test_an_account_that_is_deleted_while_it_uploads_leaves_nothing(
    suite: RunningSuite, people: People, boss: Person
) -> None:
    async def has_several(person: Person) -> bool:
        return rows_of(suite, person) > 1

    for dan in [await people.join() for _ in range(3)]:
        uploading = [asyncio.create_task(upload_until_gone(dan)) for _ in range(3)]
        await until(functools.partial(has_several, dan))

        await delete_account(dan)

        failed = await asyncio.gather(*uploading)
        assert {each.code for each in failed} == {grpc.StatusCode.UNAUTHENTICATED}
        await erased(boss, dan.id)
        await nothing_kept(suite, dan)
        assert databases.left_of_users(suite, [dan.id]) == {}


# Races.


async def test_of_posts_with_the_same_image_at_once_one_is_written(ana: Person) -> None:
    media = await ana.upload()

    answers = await asyncio.gather(
        *(ana.post(str(number), media_ids=[media.id]) for number in range(6)), return_exceptions=True
    )

    refused = [told(Failure(answer)) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert refused == [MEDIA_IN_USE] * 5
    (post,) = (answer for answer in answers if isinstance(answer, posts_pb2.Post))
    assert shown(await ana.see(post)) == [media.id]
    assert (await ana.profile(ana)).post_count == 1


async def test_an_image_is_deleted_or_shown_but_not_both(ana: Person) -> None:
    for _ in range(5):
        media = await ana.upload()

        posted, avatar, deleted = await asyncio.gather(
            ana.post(media_ids=[media.id]),
            show_as_avatar(ana, media.id),
            delete(ana, media.id),
            return_exceptions=True,
        )

        done = [answer for answer in (posted, avatar, deleted) if not isinstance(answer, BaseException)]
        assert len(done) == 1
        for answer in (posted, avatar, deleted):
            if isinstance(answer, grpc.aio.AioRpcError):
                assert told(Failure(answer)) == (MEDIA_NOT_FOUND if done == [deleted] else MEDIA_IN_USE)
        if done != [deleted]:
            assert load(media.variants[0].url).status == 200


async def test_an_image_of_a_post_that_is_deleted_meanwhile_is_gone_or_elsewhere(ana: Person, ben: Person) -> None:
    for _ in range(5):
        media = await ana.upload()
        post = await ana.post(media_ids=[media.id])

        removed, _ = await asyncio.gather(
            change_media(ana, post, [], "media"), delete_post(ana, post), return_exceptions=True
        )

        if isinstance(removed, BaseException):
            assert told(await failure(read(ana, media.id))) == MEDIA_NOT_FOUND
        else:
            assert await read(ana, media.id) == media

"""Images through the public API, and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from PIL import Image

from insta.gateway.v1 import accounts_pb2, feed_pb2, media_pb2, posts_pb2, profiles_pb2, short_profile_pb2
from tests import databases
from tests.deletions import delete_account, delete_post, erased, erasure_of
from tests.end_to_end.lists import everything
from tests.images import (
    Hanging,
    chunk,
    download,
    folders,
    header,
    held_for,
    load,
    lost,
    no_longer_loaded,
    nothing_kept,
    nothing_lost,
    rows_of,
)
from tests.people import CHUNK_BYTES, Failure, People, Person, failure, small_picture, until
from tests.posts.media.drawing import (
    COLOURS,
    CONTENT_TYPES,
    FORMATS,
    encoded,
    near,
    opened,
    picture,
    png_chunk,
    png_with,
    quarters,
)
from tests.running import RunningSuite

NOBODYS = 2**40
MEDIA_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "MEDIA_NOT_FOUND")
NOT_OWNER = (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")
MEDIA_IN_USE = (grpc.StatusCode.FAILED_PRECONDITION, "MEDIA_IN_USE")
REUSED = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")

_ids = itertools.count()


def new_id() -> str:
    return f"media-{os.getpid()}-{next(_ids)}"


def told(failed: Failure) -> tuple[grpc.StatusCode, str]:
    return failed.code, failed.reason


async def read(person: Person, media_id: int) -> media_pb2.Media:
    return (await person.media.GetMedia(media_pb2.GetMediaRequest(media_id=media_id))).media


def delete(person: Person, media_id: int, **fields: Any) -> Awaitable[media_pb2.DeleteMediaResponse]:
    return person.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=media_id, **fields))


async def describe(person: Person, media_id: int, alt_text: str) -> media_pb2.Media:
    request = media_pb2.UpdateMediaRequest(media_id=media_id, alt_text=alt_text)
    return (await person.media.UpdateMedia(request)).media


async def show_as_avatar(person: Person, media_id: int, **fields: Any) -> media_pb2.Media:
    request = accounts_pb2.SetAvatarRequest(media_id=media_id, **fields)
    return (await person.accounts.SetAvatar(request)).avatar


def remove_avatar(person: Person) -> Awaitable[accounts_pb2.RemoveAvatarResponse]:
    return person.accounts.RemoveAvatar(accounts_pb2.RemoveAvatarRequest())


async def change_media(person: Person, post: posts_pb2.Post, media_ids: list[int], *paths: str) -> posts_pb2.Post:
    wanted = posts_pb2.Post(id=post.id, media=(media_pb2.Media(id=media_id) for media_id in media_ids))
    request = posts_pb2.UpdatePostRequest(post=wanted)
    request.update_mask.paths.extend(paths)
    return (await person.posts.UpdatePost(request)).post


def shown(post: posts_pb2.Post) -> list[int]:
    return [media.id for media in post.media]


@pytest_asyncio.fixture
async def cid(together: RunningSuite) -> AsyncIterator[Person]:
    """Somebody of the suite `together`."""
    people = People(together.address)
    yield await people.join()
    await people.channel.close()


# Uploads and downloads.


@pytest.mark.parametrize("format_name", FORMATS)
async def test_an_image_of_each_format_is_had_in_every_variant_alike_over_both_ways(
    ana: Person, format_name: str
) -> None:
    media = await ana.upload(encoded(picture(400, 300), format_name), CONTENT_TYPES[format_name], alt_text="Four")

    assert (media.owner_id, media.content_type, media.alt_text) == (ana.id, CONTENT_TYPES[format_name], "Four")
    assert (media.width, media.height) == (400, 300)
    assert 10 < len(media.blurhash) < 40
    assert not media.HasField("url_expire_time")
    made = [(variant.width, variant.height, variant.content_type) for variant in media.variants]
    assert made == [
        (width, height, content_type)
        for width, height in ((320, 240), (400, 300))
        for content_type in ("image/webp", "image/jpeg")
    ]
    for variant in media.variants:
        downloaded = await download(ana, media.id, max_width=variant.width, content_type=variant.content_type)
        loaded = load(variant.url)
        assert downloaded.variant == variant
        assert (loaded.status, loaded.content_type) == (200, variant.content_type)
        assert downloaded.data == loaded.body
        assert len(loaded.body) == variant.size
        image = opened(loaded.body)
        assert image.size == (variant.width, variant.height)
        assert all(near(seen, drawn) for seen, drawn in zip(quarters(image), COLOURS, strict=True))
    assert await read(ana, media.id) == media


async def test_a_download_takes_the_widest_variant_that_is_not_too_wide(cid: Person) -> None:
    media = await cid.upload(encoded(picture(1200, 20), "PNG"))

    async def width(**asked: Any) -> tuple[int, str]:
        variant = (await download(cid, media.id, **asked)).variant
        return variant.width, variant.content_type

    assert await width() == (1080, "image/webp")
    assert await width(content_type="image/jpeg") == (1080, "image/jpeg")
    for most, expected in ((1, 320), (319, 320), (320, 320), (639, 320), (640, 640), (1079, 640), (2**31 - 1, 1080)):
        assert await width(max_width=most) == (expected, "image/webp")
        assert await width(max_width=most, content_type="image/jpeg") == (expected, "image/jpeg")


async def test_a_small_image_has_one_size(cid: Person) -> None:
    media = await cid.upload()

    assert [(v.width, v.height, v.content_type) for v in media.variants] == [
        (4, 3, "image/webp"),
        (4, 3, "image/jpeg"),
    ]
    assert (await download(cid, media.id, max_width=1)).variant == media.variants[0]


@pytest.mark.parametrize("size", [CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
async def test_a_file_of_any_number_of_chunks_arrives_whole(ana: Person, size: int) -> None:
    small = small_picture()
    # A comment fills it up; a chunk has 12 bytes beside what it holds.
    data = png_with(small, png_chunk(b"tEXt", b"x" * (size - len(small) - 12)))
    assert len(data) == size

    media = await ana.upload(data, sha256=hashlib.sha256(data).digest())

    assert (media.width, media.height) == (4, 3)
    assert media.variants[0].size < 1000


async def test_chunks_may_be_of_any_size(ana: Person) -> None:
    data = small_picture()

    async def dripping() -> AsyncIterator[media_pb2.UploadMediaRequest]:
        yield header(content_type="image/png", size=len(data))
        for byte in data:
            yield chunk(bytes([byte]))

    assert (await ana.media.UploadMedia(dripping())).media.width == 4


async def test_a_download_comes_in_chunks_that_are_not_too_big(cid: Person) -> None:
    noise = Image.effect_noise((800, 800), 200).convert("RGB")
    media = await cid.upload(encoded(noise, "JPEG", quality=95), "image/jpeg")

    downloaded = await download(cid, media.id, content_type="image/jpeg")

    assert len(downloaded.chunks) > 1
    assert {len(part) for part in downloaded.chunks[:-1]} == {256 * 1024}
    assert 0 < len(downloaded.chunks[-1]) <= 256 * 1024
    assert downloaded.data == load(downloaded.variant.url).body


async def test_ids_grow_and_are_never_used_again(ana: Person) -> None:
    first = await ana.upload()
    await delete(ana, first.id)

    assert (await ana.upload()).id > first.id


async def test_the_same_file_twice_is_two_images_with_addresses_of_their_own(ana: Person) -> None:
    data = small_picture()
    first, second = await ana.upload(data), await ana.upload(data)

    assert first.id != second.id
    assert {v.url for v in first.variants}.isdisjoint(v.url for v in second.variants)


# Retries.


async def test_an_upload_that_comes_again_gets_the_first_answer_and_makes_no_second_image(
    suite: RunningSuite, ana: Person
) -> None:
    data, request_id = small_picture(), new_id()
    first = await ana.upload(data, request_id=request_id, alt_text="One")

    again = await ana.upload(data, request_id=request_id, alt_text="One", sha256=hashlib.sha256(data).digest())

    assert again == first
    assert await ana.upload(data, request_id=new_id(), alt_text="One") != first


async def test_another_upload_under_the_same_id_is_refused(ana: Person, ben: Person) -> None:
    data, request_id = small_picture(), new_id()
    first = await ana.upload(data, request_id=request_id, alt_text="One")
    other = bytearray(data)
    other[-1] ^= 1

    for file, fields in ((small_picture(), {"alt_text": "One"}), (data, {}), (bytes(other), {"alt_text": "One"})):
        failed = await failure(ana.upload(file, request_id=request_id, **fields))
        assert (told(failed), failed.fields) == (REUSED, ["request_id"])
    assert await ana.upload(data, request_id=request_id, alt_text="One") == first
    # Of somebody else it is another request.
    assert (await ben.upload(data, request_id=request_id, alt_text="One")).owner_id == ben.id


@pytest.mark.inside
async def test_the_same_upload_several_times_at_once_makes_one_image_and_leaves_nothing_else(
    suite: RunningSuite, ana: Person
) -> None:
    data, request_id = small_picture(), new_id()

    answers = await asyncio.gather(*(ana.upload(data, request_id=request_id) for _ in range(4)))

    assert {answer.id for answer in answers} == {answers[0].id}
    assert load(answers[0].variants[0].url).status == 200

    async def kept() -> tuple[int, int, set[str]]:
        return rows_of(suite, ana), held_for(suite, ana), lost(suite)

    await until(kept, (1, 0, set()))


async def test_a_refused_upload_can_be_sent_again_under_its_id(ana: Person) -> None:
    data, request_id = small_picture(), new_id()
    await failure(ana.upload(data[:-20], request_id=request_id))

    assert (await ana.upload(data, request_id=request_id)).width == 4


async def test_changes_that_come_again_get_the_first_answer(ana: Person) -> None:
    media = await ana.upload()
    avatar = accounts_pb2.SetAvatarRequest(media_id=media.id, request_id=new_id())
    first = await ana.accounts.SetAvatar(avatar)
    await remove_avatar(ana)

    assert await ana.accounts.SetAvatar(avatar) == first
    assert not (await ana.account()).HasField("avatar")
    deletion = media_pb2.DeleteMediaRequest(media_id=media.id, request_id=new_id())
    assert await ana.media.DeleteMedia(deletion) == await ana.media.DeleteMedia(deletion)
    assert told(await failure(delete(ana, media.id))) == MEDIA_NOT_FOUND


# What is said of an image.


async def test_what_is_said_of_an_image_changes_wherever_it_is_shown(ana: Person, ben: Person) -> None:
    media = await ana.upload(alt_text="A hill")
    post = await ana.post(media_ids=[media.id])

    changed = await describe(ana, media.id, "Two hills 🌅")
    again = await describe(ana, media.id, "Two hills 🌅")

    assert (changed.alt_text, changed.variants, changed.create_time) == (
        "Two hills 🌅",
        media.variants,
        media.create_time,
    )
    assert again == changed == await read(ben, media.id)
    assert list((await ben.see(post)).media) == [changed]
    assert (await describe(ana, media.id, "")).alt_text == ""


async def test_as_much_can_be_said_as_the_contract_allows(ana: Person) -> None:
    media = await ana.upload(alt_text="語" * 1000)

    assert (await read(ana, media.id)).alt_text == "語" * 1000


# Posts.


async def test_a_post_shows_its_images_in_order_wherever_it_is_read(ana: Person, ben: Person) -> None:
    await ben.follow(ana)
    uploaded = [await ana.upload(alt_text=str(number)) for number in range(3)]
    other = await ana.post(media_ids=[(await ana.upload()).id])
    order = [uploaded[2], uploaded[0], uploaded[1]]

    post = await ana.post(media_ids=[media.id for media in order], image_urls=["https://example.com/a.jpg"])

    assert list(post.media) == order
    request = posts_pb2.BatchGetPostsRequest(post_ids=[post.id, other.id])
    batch = list((await ben.posts.BatchGetPosts(request)).posts)
    profile = await everything(ben.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=ana.id))
    for seen in (await ben.see(post), batch[0], profile[0]):
        assert list(seen.media) == order
        assert list(seen.image_urls) == ["https://example.com/a.jpg"]
    assert shown(batch[1]) == shown(other)

    async def in_feed() -> list[list[int]]:
        feed = await ben.feed.ListHomeFeed(feed_pb2.ListHomeFeedRequest(page_size=10))
        return [shown(found) for found in feed.posts]

    await until(in_feed, [[media.id for media in order], shown(other)])


async def test_ten_images_are_shown(ana: Person) -> None:
    media_ids = [(await ana.upload()).id for _ in range(10)][::-1]

    assert shown(await ana.see(await ana.post(media_ids=media_ids))) == media_ids


async def test_an_update_reorders_removes_and_adds_images(ana: Person, ben: Person) -> None:
    first, second, third, fourth = [(await ana.upload()).id for _ in range(4)]
    post = await ana.post(media_ids=[first, second, third])

    for media_ids in ([third, first, second], [third, second], [fourth, second, third], [fourth], [first, fourth]):
        changed = await change_media(ana, post, media_ids, "media")
        assert shown(changed) == shown(await ben.see(post)) == media_ids
    assert changed.update_time.ToNanoseconds() > post.update_time.ToNanoseconds()
    assert shown(await change_media(ana, post, [], "media")) == []


async def test_an_update_without_a_mask_changes_images_that_are_named_and_keeps_them_otherwise(ana: Person) -> None:
    first, second = [(await ana.upload()).id for _ in range(2)]
    post = await ana.post("Old", media_ids=[first])

    assert shown(await change_media(ana, post, [second, first])) == [second, first]
    assert shown(await change_media(ana, post, [])) == [second, first]
    renamed = await ana.posts.UpdatePost(posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post.id, title="New")))
    assert (renamed.post.title, shown(renamed.post)) == ("New", [second, first])
    # What the mask does not name is not changed.
    assert shown(await change_media(ana, post, [first], "description")) == [second, first]


async def test_an_update_that_fails_changes_nothing(ana: Person, ben: Person) -> None:
    mine, used = [(await ana.upload()).id for _ in range(2)]
    post = await ana.post("Old", media_ids=[mine])
    await ana.post(media_ids=[used])
    hidden = (await ben.upload()).id
    seen = (await ben.upload()).id
    await ben.post(media_ids=[seen])
    before = await ana.see(post)

    for media_id, expected in (
        (used, MEDIA_IN_USE),
        (hidden, MEDIA_NOT_FOUND),
        (NOBODYS, MEDIA_NOT_FOUND),
        (seen, NOT_OWNER),
    ):
        assert told(await failure(change_media(ana, post, [media_id], "media"))) == expected
        assert told(await failure(change_media(ana, post, [mine, media_id], "media"))) == expected
        assert told(await failure(ana.post(media_ids=[mine, media_id] if media_id != used else [used]))) in (
            expected,
            MEDIA_IN_USE,
        )
    assert await ana.see(post) == before
    assert (await ana.profile(ana)).post_count == 2


async def test_an_image_that_a_post_shows_no_longer_can_be_used_again(ana: Person, ben: Person) -> None:
    media = await ana.upload()
    post = await ana.post(media_ids=[media.id])
    await change_media(ana, post, [], "media")

    assert told(await failure(read(ben, media.id))) == MEDIA_NOT_FOUND
    assert await read(ana, media.id) == media
    other = await ana.post(media_ids=[media.id])
    assert list((await ben.see(other)).media) == [media]
    await change_media(ana, other, [], "media")
    assert await show_as_avatar(ana, media.id) == media
    await remove_avatar(ana)
    await delete(ana, media.id)


async def test_an_image_is_shown_in_one_place_only(ana: Person) -> None:
    in_post, avatar = await ana.upload(), await ana.upload()
    post = await ana.post(media_ids=[in_post.id])
    await show_as_avatar(ana, avatar.id)
    empty = await ana.post()

    for call in (
        ana.post(media_ids=[in_post.id]),
        ana.post(media_ids=[avatar.id]),
        change_media(ana, empty, [in_post.id], "media"),
        change_media(ana, empty, [avatar.id], "media"),
        show_as_avatar(ana, in_post.id),
        delete(ana, in_post.id),
        delete(ana, avatar.id),
    ):
        assert told(await failure(call)) == MEDIA_IN_USE
    assert shown(await ana.see(post)) == [in_post.id]
    assert (await ana.account()).avatar == avatar
    assert (await ana.profile(ana)).post_count == 2


async def test_a_post_that_comes_again_shows_its_images_once(ana: Person) -> None:
    media = await ana.upload()
    request = posts_pb2.CreatePostRequest(title="Once", media_ids=[media.id], request_id=new_id())

    first, second = await asyncio.gather(ana.posts.CreatePost(request), ana.posts.CreatePost(request))

    assert first == second
    assert list(first.post.media) == [media]


# Avatars.


async def people_seen(reader: Person, author: Person, post: posts_pb2.Post) -> list[short_profile_pb2.ShortProfile]:
    """Somebody in one line, wherever they are: as author, by comments, likes and follows."""
    comments = await everything(reader.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post.id))
    likers = await everything(reader.posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=post.id))
    followers = await everything(reader.profiles.ListFollowers, profiles_pb2.ListFollowersRequest(user_id=reader.id))
    seen = [(await reader.see(post)).author, *(comment.author for comment in comments), *likers, *followers]
    found = [person for person in seen if person.id == author.id]
    assert len(found) == 4
    return found


async def test_an_avatar_is_seen_wherever_its_owner_is(people: People, ana: Person, ben: Person) -> None:
    post = await ana.post()
    await ana.comment(post)
    await ana.like(post)
    await ana.follow(ben)
    assert {seen.avatar_url for seen in await people_seen(ben, ana, post)} == {""}
    first, second = await ana.upload(encoded(picture(400, 300), "PNG")), await ana.upload()

    for avatar in (first, second, None):
        if avatar is None:
            await remove_avatar(ana)
        else:
            assert await show_as_avatar(ana, avatar.id) == avatar
        # What a profile shows is read anew each time, whatever process is asked.
        for found in (await ana.account(), await ben.profile(ana)):
            assert (found.avatar if found.HasField("avatar") else None) == avatar
        url = "" if avatar is None else avatar.variants[0].url

        async def urls() -> set[str]:
            return {seen.avatar_url for seen in await people_seen(ben, ana, post)}

        # The gateway that was asked knows at once; of workers another may have been asked.
        await until(urls, {url})
    assert told(await failure(read(ben, first.id))) == MEDIA_NOT_FOUND
    assert await read(ana, first.id) == first


async def test_the_gateway_that_changed_an_avatar_shows_it_at_once(cid: Person) -> None:
    post = await cid.post()
    for _ in range(5):
        avatar = await cid.upload()
        await show_as_avatar(cid, avatar.id)
        assert (await cid.see(post)).author.avatar_url == avatar.variants[0].url
        await remove_avatar(cid)
        assert (await cid.see(post)).author.avatar_url == ""


async def test_every_process_soon_shows_a_new_avatar(suite: RunningSuite, ana: Person) -> None:
    """Each connection of workers may be another process."""
    readers = [People(suite.address) for _ in range(6)]
    post = await ana.post()
    seers = [Person(reader.channel, ana.id, ana.username, ana.token) for reader in readers]
    for seer in seers:
        assert (await seer.see(post)).author.avatar_url == ""

    avatar = await ana.upload()
    await show_as_avatar(ana, avatar.id)

    async def urls() -> set[str]:
        return {(await seer.see(post)).author.avatar_url for seer in seers}

    # Before long each would ask anew by itself: the news has to be faster.
    await until(urls, {avatar.variants[0].url}, seconds=5)
    for reader in readers:
        await reader.channel.close()


async def test_repeating_changes_of_an_avatar_changes_nothing_more(ana: Person) -> None:
    media = await ana.upload()

    assert await show_as_avatar(ana, media.id) == await show_as_avatar(ana, media.id) == media
    await remove_avatar(ana)
    await remove_avatar(ana)
    assert not (await ana.account()).HasField("avatar")


async def test_of_avatars_that_are_set_at_once_one_stays(ana: Person) -> None:
    uploaded = [await ana.upload() for _ in range(4)]

    await asyncio.gather(*(show_as_avatar(ana, media.id) for media in uploaded))

    avatar = (await ana.account()).avatar
    assert avatar in uploaded
    for media in uploaded:
        if media != avatar:
            await delete(ana, media.id)


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
        failed = Failure(await _refused(person))
        if failed.reason != "UPLOADS_BUSY":
            return failed


async def _refused(person: Person) -> grpc.aio.AioRpcError:
    """Upload until that fails."""
    async with asyncio.timeout(10):
        while True:
            try:
                await person.upload()
            except grpc.aio.AioRpcError as error:
                return error


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
        assert load(media.variants[0].url).status == 200 or done == [deleted]


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


# Clients that give up.


@pytest.mark.inside
async def test_uploads_that_are_cancelled_leave_nothing_and_make_room_for_others(
    suite: RunningSuite, ana: Person
) -> None:
    hanging = [Hanging(ana) for _ in range(4)]
    await asyncio.gather(*(each.under_way.wait() for each in hanging))
    busy = Failure(await _refused(ana))
    for each in hanging:
        each.call.cancel()

    async def four_at_once() -> int:
        answers = await asyncio.gather(*(ana.upload() for _ in range(4)), return_exceptions=True)
        return sum(isinstance(answer, media_pb2.Media) for answer in answers)

    assert told(busy) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOADS_BUSY")
    await until(four_at_once, 4)
    assert held_for(suite, ana) == 0
    await nothing_lost(suite)
    for each in hanging:
        with contextlib.suppress(asyncio.CancelledError):
            await each.call


def open_images(suite: RunningSuite) -> list[str]:
    """The images that the process of a suite has open."""
    assert suite.process is not None
    folder = Path(f"/proc/{suite.process.pid}/fd")
    opened_files = []
    for descriptor in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened_files.append(os.readlink(descriptor))
    return [name for name in opened_files if name.endswith((".webp", ".jpg"))]


async def test_downloads_that_are_cancelled_let_go_of_their_files(together: RunningSuite, cid: Person) -> None:
    noise = Image.effect_noise((800, 800), 200).convert("RGB")
    media = await cid.upload(encoded(noise, "JPEG", quality=95), "image/jpeg")
    request = media_pb2.DownloadMediaRequest(media_id=media.id, content_type="image/jpeg")

    for _ in range(20):
        call = cid.media.DownloadMedia(request)
        first = await call.read()
        assert first.HasField("variant")
        call.cancel()

    async def open_now() -> list[str]:
        return open_images(together)

    await until(open_now, [])
    assert len((await download(cid, media.id, content_type="image/jpeg")).data) > 256 * 1024


async def test_a_half_written_image_is_never_in_the_store(cid: Person, together: RunningSuite) -> None:
    before = folders(together)
    hanging = Hanging(cid)
    await hanging.under_way.wait()

    assert folders(together) <= before
    hanging.call.cancel()

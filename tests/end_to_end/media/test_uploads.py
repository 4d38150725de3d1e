"""Images are uploaded and had again, through the public API and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from insta.gateway.v1 import accounts_pb2, media_pb2
from tests.end_to_end.media.calls import (
    MEDIA_NOT_FOUND,
    REUSED,
    delete,
    describe,
    new_id,
    read,
    refused_upload,
    remove_avatar,
    told,
)
from tests.images import (
    Hanging,
    chunk,
    download,
    header,
    held_for,
    load,
    lost,
    nothing_lost,
    rows_of,
)
from tests.people import CHUNK_BYTES, Failure, Person, failure, small_picture, until
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


async def test_another_upload_under_the_same_id_isrefused_upload(ana: Person, ben: Person) -> None:
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


# Clients that give up.


@pytest.mark.inside
async def test_uploads_that_are_cancelled_leave_nothing_and_make_room_for_others(
    suite: RunningSuite, ana: Person
) -> None:
    hanging = [Hanging(ana) for _ in range(4)]
    await asyncio.gather(*(each.under_way.wait() for each in hanging))
    busy = Failure(await refused_upload(ana))
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

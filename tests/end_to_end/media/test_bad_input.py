"""Uploads that are no images, or do not go as they should: each is refused with a reason, and nothing of it stays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from PIL import Image

from insta.gateway.v1 import accounts_pb2, media_pb2, posts_pb2
from tests.end_to_end.media.calls import MEDIA_LIMIT, MEDIA_NOT_FOUND, UPLOAD_INCOMPLETE, change_media, delete, told
from tests.images import (
    Hanging,
    chunk,
    download,
    give_images,
    header,
    held_for,
    load,
    nothing_kept,
    nothing_lost,
    rows_of,
)
from tests.people import Failure, People, Person, failure, small_picture, until
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

INVALID_FIELDS = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
UPLOADS_BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOADS_BUSY")
NO_IDS = (0, -1, -(2**63))
PNG = small_picture()
HTML = b"<html><script>alert(document.domain)</script></html>"

Parts = Sequence[media_pb2.UploadMediaRequest]

pytestmark = pytest.mark.inside


async def stream(parts: Parts) -> AsyncIterator[media_pb2.UploadMediaRequest]:
    for part in parts:
        yield part


def png_header(**fields: Any) -> media_pb2.UploadMediaRequest:
    return header(**{"content_type": "image/png", "size": len(PNG), **fields})


async def assert_nothing_came_of_it(suite: RunningSuite, person: Person) -> None:
    await nothing_kept(suite, person)
    assert (await person.upload()).width == 4


# Files that are no images.
NO_IMAGES = {
    "TIFF": encoded(picture(32, 32), "TIFF"),
    "BMP": encoded(picture(32, 32), "BMP"),
    "ICO": encoded(picture(32, 32), "ICO"),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n%%EOF\n",
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "HTML": HTML,
    "HTML before a GIF": HTML + encoded(picture(8, 8), "GIF"),
    "zeros": bytes(1000),
    "one byte": b"\xff",
}


@pytest.mark.parametrize("name", NO_IMAGES)
async def test_what_is_no_image_is_refused_whatever_it_is_declared_as(
    together: RunningSuite, cid: Person, name: str
) -> None:
    for content_type in CONTENT_TYPES.values():
        failed = await failure(cid.upload(NO_IMAGES[name], content_type))
        assert told(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_FORMAT_UNKNOWN")
    await assert_nothing_came_of_it(together, cid)


@pytest.mark.parametrize("format_name", FORMATS)
async def test_an_image_that_is_declared_as_another_is_refused(
    together: RunningSuite, cid: Person, format_name: str
) -> None:
    data = encoded(picture(16, 16), format_name)
    for content_type in set(CONTENT_TYPES.values()) - {CONTENT_TYPES[format_name]}:
        failed = await failure(cid.upload(data, content_type))
        assert told(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_FORMAT_DIFFERS")
        assert CONTENT_TYPES[format_name] in failed.text
    await assert_nothing_came_of_it(together, cid)


@pytest.mark.parametrize("format_name", FORMATS)
async def test_a_file_that_was_cut_off_is_refused(together: RunningSuite, cid: Person, format_name: str) -> None:
    data = encoded(picture(64, 64), format_name)
    for length in (len(data) // 2, len(data) * 3 // 4):
        failed = await failure(cid.upload(data[:length], CONTENT_TYPES[format_name]))
        assert told(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_DAMAGED")
    await assert_nothing_came_of_it(together, cid)


async def test_a_small_file_of_too_many_pixels_is_refused(suite: RunningSuite, ana: Person) -> None:
    # One bit a pixel: 88 million of them, which would be 266 MB.
    bomb = encoded(Image.new("1", (9400, 9400)), "PNG")
    assert len(bomb) < 20_000

    failed = await failure(ana.upload(bomb))

    assert told(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE")
    await assert_nothing_came_of_it(suite, ana)


async def test_of_an_image_that_moves_the_first_frame_is_taken_but_a_sequence_is_refused(
    together: RunningSuite, cid: Person
) -> None:
    frames = [picture(64, 48), Image.new("RGB", (64, 48))]
    moving = {
        name: encoded(frames[0], name, save_all=True, append_images=frames[1:], duration=50)
        for name in ("WEBP", "AVIF", "GIF")
    }

    failed = await failure(cid.upload(moving["AVIF"], "image/avif"))
    assert told(failed) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_ANIMATED")
    for name in ("WEBP", "GIF"):
        media = await cid.upload(moving[name], CONTENT_TYPES[name])
        shown = opened((await download(cid, media.id)).data)
        assert not getattr(shown, "is_animated", False)
        assert all(near(seen, drawn) for seen, drawn in zip(quarters(shown), COLOURS, strict=True))
        await delete(cid, media.id)
    await assert_nothing_came_of_it(together, cid)


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "JPEG"])
async def test_what_hides_in_an_image_is_not_served(cid: Person, format_name: str) -> None:
    """Files that are something else, too: only the pixels are kept of them."""
    data = encoded(picture(16, 16), format_name) + HTML
    if format_name == "GIF":
        # A comment before the frame.
        at = data.index(b",", 13)
        data = data[:at] + b"!\xfe" + bytes([len(HTML)]) + HTML + b"\0" + data[at:]
    if format_name == "PNG":
        data = png_with(data, png_chunk(b"tEXt", b"Comment\0" + HTML))

    media = await cid.upload(data, CONTENT_TYPES[format_name])

    for variant in media.variants:
        loaded = load(variant.url)
        assert (loaded.status, loaded.content_type) == (200, variant.content_type)
        assert b"script" not in loaded.body
        assert loaded.body.startswith(b"RIFF" if variant.content_type == "image/webp" else b"\xff\xd8\xff")


async def test_files_with_random_defects_are_taken_or_refused_and_never_a_defect_of_the_suite(
    together: RunningSuite, cid: Person
) -> None:
    chance = random.Random(4)
    for format_name in FORMATS:
        data = encoded(picture(24, 24), format_name)
        for _ in range(12):
            broken = bytearray(data)
            for _ in range(chance.randint(1, 8)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            try:
                await delete(cid, (await cid.upload(bytes(broken), CONTENT_TYPES[format_name])).id)
            except grpc.aio.AioRpcError as error:
                failed = Failure(error)
                assert failed.code is grpc.StatusCode.INVALID_ARGUMENT, (failed, broken.hex())
                assert failed.reason.startswith("IMAGE_"), (failed, broken.hex())
    await assert_nothing_came_of_it(together, cid)


# Streams that do not go as they should.
INCOMPLETE = {
    "nothing": [],
    "no header": [chunk(PNG)],
    "a header only": [png_header()],
    "two headers": [png_header(), png_header(), chunk(PNG)],
    "a header in the middle": [png_header(), chunk(PNG[:9]), png_header(), chunk(PNG[9:])],
    "a header at the end": [png_header(), chunk(PNG), png_header()],
    "a byte too few": [png_header(size=len(PNG) + 1), chunk(PNG)],
    "a byte too many": [png_header(size=len(PNG) - 1), chunk(PNG)],
    "a chunk too many": [png_header(), chunk(PNG), chunk(b"x")],
    "another file than the hash is of": [png_header(sha256=bytes(32)), chunk(PNG)],
}
INVALID = {
    "no part": ([png_header(), media_pb2.UploadMediaRequest()], "part"),
    "no part at first": ([media_pb2.UploadMediaRequest()], "part"),
    "an empty chunk": ([png_header(), chunk(b""), chunk(PNG)], "chunk"),
    "a chunk that is too big": ([png_header(size=65537), chunk(bytes(65537))], "chunk"),
    "no size": ([png_header(size=0)], "header.size"),
    "a negative size": ([png_header(size=-1)], "header.size"),
    "more than 20 MiB": ([png_header(size=20 * 1024 * 1024 + 1)], "header.size"),
    "no type": ([png_header(content_type="")], "header.content_type"),
    "a type that is not taken": ([png_header(content_type="image/svg+xml")], "header.content_type"),
    "a type in capitals": ([png_header(content_type="IMAGE/PNG")], "header.content_type"),
    "a hash of another length": ([png_header(sha256=bytes(31))], "header.sha256"),
    "too many words": ([png_header(alt_text="x" * 1001)], "header.alt_text"),
    "controls in words": ([png_header(alt_text="a\x00b")], "header.alt_text"),
    "an id that is none": ([png_header(request_id="a b")], "header.request_id"),
    "an id that is too long": ([png_header(request_id="x" * 65)], "header.request_id"),
}


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_a_stream_that_does_not_go_as_its_header_says_is_refused(
    suite: RunningSuite, ana: Person, name: str
) -> None:
    failed = await failure(ana.media.UploadMedia(stream(INCOMPLETE[name])))

    assert told(failed) == UPLOAD_INCOMPLETE
    assert len(failed.text) > 20
    await assert_nothing_came_of_it(suite, ana)


async def test_a_refusal_arrives_also_while_the_stream_ends(suite: RunningSuite, ana: Person) -> None:
    for _ in range(60):
        failed = await failure(ana.media.UploadMedia(stream(INCOMPLETE["a header in the middle"])))
        assert told(failed) == UPLOAD_INCOMPLETE


@pytest.mark.parametrize("name", INVALID)
async def test_a_part_that_breaks_the_rules_is_refused_and_its_field_named(
    together: RunningSuite, cid: Person, name: str
) -> None:
    parts, field = INVALID[name]

    failed = await failure(cid.media.UploadMedia(stream(parts)))

    assert (told(failed), failed.fields) == (INVALID_FIELDS, [field])
    await assert_nothing_came_of_it(together, cid)


async def test_bytes_that_are_no_part_are_refused(suite: RunningSuite, ana: Person) -> None:
    async def garbage() -> AsyncIterator[bytes]:
        yield png_header().SerializeToString()
        yield b"\xff\xff\xff"

    send = ana.channel.stream_unary("/insta.gateway.v1.MediaService/UploadMedia")

    assert told(await failure(send(garbage()))) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    await assert_nothing_came_of_it(suite, ana)


async def test_a_stream_without_an_end_is_cut_off(suite: RunningSuite, ana: Person) -> None:
    call = ana.media.UploadMedia(None)
    sent = 0

    async def send_for_ever() -> None:
        nonlocal sent
        await call.write(png_header(size=100_000))
        while True:
            await call.write(chunk(bytes(65536)))
            sent += 1

    sending = asyncio.create_task(send_for_ever())
    # At once: gRPC's clients put a failure of their own in place of the status if they cannot send any more.
    call.add_done_callback(lambda _: sending.cancel())
    failed = await failure(call)
    await asyncio.wait([sending])

    assert told(failed) == UPLOAD_INCOMPLETE
    # What was on its way in the buffers of both sides.
    assert sent < 1000
    await assert_nothing_came_of_it(suite, ana)


async def test_a_client_that_breaks_in_the_middle_stores_nothing(suite: RunningSuite, ana: Person) -> None:
    async def breaking() -> AsyncIterator[media_pb2.UploadMediaRequest]:
        yield png_header()
        yield chunk(PNG[:-1])
        raise RuntimeError("the client's own")

    call = ana.media.UploadMedia(breaking())
    with pytest.raises((asyncio.CancelledError, RuntimeError, grpc.aio.AioRpcError)):
        await call

    await assert_nothing_came_of_it(suite, ana)


async def test_an_upload_whose_deadline_passes_stores_nothing(suite: RunningSuite, ana: Person) -> None:
    never = asyncio.Event()

    async def slow() -> AsyncIterator[media_pb2.UploadMediaRequest]:
        yield png_header()
        yield chunk(PNG[:-1])
        await never.wait()

    failed = await failure(ana.media.UploadMedia(slow(), timeout=0.3))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await assert_nothing_came_of_it(suite, ana)


@pytest.mark.soak
async def test_who_sends_nothing_for_ten_seconds_is_told_so(suite: RunningSuite, ana: Person) -> None:
    never = asyncio.Event()

    async def slow(*parts: media_pb2.UploadMediaRequest) -> AsyncIterator[media_pb2.UploadMediaRequest]:
        for part in parts:
            yield part
        await never.wait()

    failed = await asyncio.gather(
        *(
            failure(ana.media.UploadMedia(slow(*parts), timeout=60))
            for parts in ((), (png_header(),), (png_header(), chunk(PNG[:-1])))
        )
    )

    assert [told(each) for each in failed] == [(grpc.StatusCode.DEADLINE_EXCEEDED, "UPLOAD_TOO_SLOW")] * 3
    await assert_nothing_came_of_it(suite, ana)


@pytest.mark.soak
async def test_an_upload_may_take_longer_than_other_calls(suite: RunningSuite, ana: Person) -> None:
    async def slow() -> AsyncIterator[media_pb2.UploadMediaRequest]:
        yield png_header()
        for byte in (PNG[:1], PNG[1:2], PNG[2:]):
            await asyncio.sleep(8)
            yield chunk(byte)

    assert (await ana.media.UploadMedia(slow(), timeout=60)).media.width == 4


# More than one may have.


async def test_more_than_four_uploads_at_once_are_refused_and_nobody_else_waits(
    suite: RunningSuite, ana: Person, ben: Person
) -> None:
    hanging = [Hanging(ana) for _ in range(4)]
    await asyncio.gather(*(each.under_way.wait() for each in hanging))

    async def refused() -> Failure:
        while True:
            try:
                # The server may not have seen yet what is under way.
                await ana.upload()
            except grpc.aio.AioRpcError as error:
                return Failure(error)

    failed = await asyncio.wait_for(refused(), 10)

    assert (told(failed), failed.retry_after) == (UPLOADS_BUSY, 2)
    assert (await ben.upload()).width == 4
    for each in hanging:
        each.call.cancel()


async def test_who_never_sends_a_header_has_no_more_than_four_uploads_either(suite: RunningSuite, ana: Person) -> None:
    never = asyncio.Event()

    async def silent() -> AsyncIterator[media_pb2.UploadMediaRequest]:
        await never.wait()
        yield png_header()

    calls = [asyncio.ensure_future(failure(ana.media.UploadMedia(silent()))) for _ in range(8)]

    for refused in [await next(asyncio.as_completed(calls)) for _ in range(1)]:
        assert told(refused) == UPLOADS_BUSY
    done, waiting = await asyncio.wait(calls, timeout=2)
    for call in waiting:
        call.cancel()
    assert [told(call.result()) for call in done] == [UPLOADS_BUSY] * len(done)
    assert len(done) == 4


async def test_who_does_not_read_their_downloads_does_not_take_the_places_of_others(
    together: RunningSuite, cid: Person
) -> None:
    noise = Image.effect_noise((600, 600), 200).convert("RGB")
    media = await cid.upload(encoded(noise, "JPEG", quality=95), "image/jpeg")
    post = await cid.post(media_ids=[media.id])
    # So little is taken before it is read.
    little = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535)]
    channel = grpc.aio.insecure_channel(together.address, options=[("grpc.use_local_subchannel_pool", 1), *little])
    greedy = Person(channel, cid.id, cid.username, cid.token)
    request = media_pb2.DownloadMediaRequest(media_id=media.id, content_type="image/jpeg")
    people = People(together.address)
    other = await people.join()
    unread = [greedy.media.DownloadMedia(request) for _ in range(32)]
    for call in unread:
        assert (await call.read()).HasField("variant")

    failed = await failure(download(cid, media.id))

    assert told(failed) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert failed.retry_after is not None
    assert await cid.see(post) == post
    assert (await download(other, media.id)).variant == media.variants[-2]
    unread.pop().cancel()

    async def one_more() -> bool:
        try:
            await download(cid, media.id)
        except grpc.aio.AioRpcError:
            return False
        return True

    await until(one_more)
    await channel.close()
    await people.channel.close()


async def test_nobody_has_more_than_200_images_that_nothing_shows(together: RunningSuite, cid: Person) -> None:
    give_images(together, cid, 198)
    first, data = await cid.upload(), small_picture()
    last = await cid.upload(data, request_id="last")

    failed = [await failure(cid.upload()), await failure(cid.upload(request_id="another"))]

    assert [told(each) for each in failed] == [MEDIA_LIMIT] * 2
    assert rows_of(together, cid) == 200
    assert held_for(together, cid) == 0
    # It has its image already.
    assert await cid.upload(data, request_id="last") == last
    await cid.post(media_ids=[first.id])
    taken = await cid.upload()
    assert told(await failure(cid.upload())) == MEDIA_LIMIT
    await delete(cid, taken.id)
    await cid.upload()
    await nothing_lost(together)


async def test_uploads_at_once_do_not_pass_the_limit(together: RunningSuite, cid: Person) -> None:
    give_images(together, cid, 198)

    answers = await asyncio.gather(*(cid.upload() for _ in range(4)), return_exceptions=True)

    refused = [told(Failure(answer)) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert refused == [MEDIA_LIMIT] * 2
    assert rows_of(together, cid) == 200


# Ids that are none.


async def test_ids_that_cannot_be_are_refused(ana: Person) -> None:
    calls: list[Callable[[int], Awaitable[Any]]] = [
        lambda media_id: ana.media.GetMedia(media_pb2.GetMediaRequest(media_id=media_id)),
        lambda media_id: download(ana, media_id),
        lambda media_id: ana.media.UpdateMedia(media_pb2.UpdateMediaRequest(media_id=media_id)),
        lambda media_id: delete(ana, media_id),
        lambda media_id: ana.accounts.SetAvatar(accounts_pb2.SetAvatarRequest(media_id=media_id)),
    ]
    for call in calls:
        for media_id in NO_IDS:
            failed = await failure(call(media_id))
            assert (told(failed), failed.fields) == (INVALID_FIELDS, ["media_id"])
        assert told(await failure(call(2**63 - 1))) == MEDIA_NOT_FOUND


async def test_a_download_names_a_type_and_a_width_that_there_are(ana: Person) -> None:
    media = await ana.upload()
    for fields, field in (
        ({"content_type": "image/png"}, "content_type"),
        ({"content_type": "image/WEBP"}, "content_type"),
        ({"max_width": -1}, "max_width"),
    ):
        failed = await failure(download(ana, media.id, **fields))
        assert (told(failed), failed.fields) == (INVALID_FIELDS, [field])


async def test_posts_of_images_that_cannot_be_are_refused(ana: Person) -> None:
    media_ids = [(await ana.upload()).id for _ in range(11)]
    post = await ana.post(media_ids=media_ids[:1])
    for wanted in (media_ids, [media_ids[0]] * 2, [media_ids[1], media_ids[2], media_ids[1]], *([i] for i in NO_IDS)):
        created = await failure(ana.post(media_ids=wanted))
        updated = await failure(change_media(ana, post, wanted, "media"))
        assert told(created) == told(updated) == INVALID_FIELDS
        assert {field.partition("[")[0] for field in created.fields} == {"media_ids"}
    assert told(await failure(ana.post(media_ids=[media_ids[1], 2**63 - 1]))) == MEDIA_NOT_FOUND
    assert await ana.see(post) == post
    assert (await ana.profile(ana)).post_count == 1
    # None of them is held by what was refused.
    assert [media.id for media in (await ana.post(media_ids=media_ids[1:])).media] == media_ids[1:]


async def test_words_that_cannot_be_are_refused(ana: Person) -> None:
    media = await ana.upload(alt_text="As it was")
    for alt_text in ("x" * 1001, "a\x00b", "a\x1b[2J"):
        request = media_pb2.UpdateMediaRequest(media_id=media.id, alt_text=alt_text)
        failed = await failure(ana.media.UpdateMedia(request))
        assert (told(failed), failed.fields) == (INVALID_FIELDS, ["alt_text"])
    assert (await ana.media.GetMedia(media_pb2.GetMediaRequest(media_id=media.id))).media == media


async def test_direct_uploads_need_an_object_store(ana: Person) -> None:
    start = media_pb2.StartUploadRequest(content_type="image/png", size=100)
    failed = await failure(ana.media.StartUpload(start))
    missing = await failure(ana.media.FinishUpload(media_pb2.FinishUploadRequest(upload_id=1)))

    assert told(failed) == (grpc.StatusCode.FAILED_PRECONDITION, "DIRECT_UPLOAD_UNSUPPORTED")
    assert told(missing) == (grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND")
    for fields, field in (({"size": 0}, "size"), ({"size": 2**60}, "size"), ({"content_type": ""}, "content_type")):
        request = media_pb2.StartUploadRequest(**{"content_type": "image/png", "size": 100, **fields})
        failed = await failure(ana.media.StartUpload(request))
        assert (told(failed), failed.fields) == (INVALID_FIELDS, [field])


async def test_what_is_refused_while_others_upload_does_not_touch_them(ana: Person, ben: Person) -> None:
    post = await ben.post(media_ids=[(await ben.upload()).id])

    refused, taken, seen = await asyncio.gather(
        asyncio.gather(*(failure(ana.upload(NO_IMAGES["TIFF"])) for _ in range(4))),
        asyncio.gather(*(ben.upload() for _ in range(4))),
        asyncio.gather(*(ana.posts.GetPost(posts_pb2.GetPostRequest(post_id=post.id)) for _ in range(8))),
    )

    assert {failed.reason for failed in refused} == {"IMAGE_FORMAT_UNKNOWN"}
    assert len({media.id for media in taken}) == 4
    assert all(answer.post == post for answer in seen)

"""What nothing shows goes: also what nobody was told of, what came late, and what could not be deleted at first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chassis import errors
from insta.posts.v1 import media_pb2, posts_pb2
from services.posts.media import discards, records
from services.posts.media.blob_store import Blob, BlobStoreAway
from tests.people import small_picture
from tests.posts.media.mishaps import DAY, FILE, HOUR, Killed, Mishap, Premises, Process, blobs_of, rows

pytestmark = pytest.mark.sqlite

PICTURE = small_picture()
ANA = 1


def folders_of(*images: media_pb2.Media) -> set[str]:
    return {blobs_of(media)[0] for media in images}


def delete(premises: Premises, process: Process, media: media_pb2.Media) -> None:
    premises.run(process.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=media.id), None), ANA)


def show(premises: Premises, process: Process, *images: media_pb2.Media) -> posts_pb2.Post:
    request = posts_pb2.CreatePostRequest(title="First light", media_ids=[media.id for media in images])
    return premises.run(process.posts.CreatePost(request, None), ANA).post


def collect_all(premises: Premises, process: Process) -> None:
    while premises.run(process.collect()):
        pass


def refused(premises: Premises, call: Callable[[], Any], who: int = ANA) -> str:
    """Why a call is refused."""
    with pytest.raises(errors.Error) as refusal:
        premises.run(call(), who)
    return refusal.value.reason_name


def test_what_no_post_takes_within_24_hours_goes_and_not_before(premises: Premises) -> None:
    process = premises.begin_process()
    unused, shown = (premises.run(process.upload(PICTURE), ANA) for _ in range(2))
    premises.pass_time(DAY - HOUR)
    show(premises, process, shown)
    collect_all(premises, process)
    assert premises.stored().keys() == folders_of(unused, shown)

    premises.pass_time(HOUR)
    collect_all(premises, process)

    assert premises.stored().keys() == folders_of(shown)
    assert refused(premises, lambda: process.media.GetMedia(media_pb2.GetMediaRequest(media_id=unused.id), None)) == (
        "MEDIA_NOT_FOUND"
    )


def test_what_is_taken_from_a_post_has_24_hours_again(premises: Premises) -> None:
    process = premises.begin_process()
    media = premises.run(process.upload(PICTURE), ANA)
    post = show(premises, process, media)
    premises.pass_time(3 * DAY)
    update = posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post.id))
    update.update_mask.paths.append("media")
    premises.run(process.posts.UpdatePost(update, None), ANA)
    premises.pass_time(DAY - HOUR)
    collect_all(premises, process)
    assert premises.stored().keys() == folders_of(media)

    premises.pass_time(HOUR)
    collect_all(premises, process)

    assert premises.stored() == {}


def test_a_folder_that_cannot_be_deleted_holds_up_no_other_and_is_tried_again(
    premises: Premises, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = premises.begin_process()
    mended = False
    images = [premises.run(process.upload(PICTURE), ANA) for _ in range(5)]
    for media in images:
        delete(premises, process, media)
    stubborn: list[str] = []
    really_delete = process.blobs.delete

    async def delete_unless_stubborn(folder: str) -> None:
        # The first one that it tries.
        if folder in stubborn or not (mended or stubborn):
            stubborn[:] = [folder]
            raise BlobStoreAway
        await really_delete(folder)

    monkeypatch.setattr(process.blobs, "delete", delete_unless_stubborn)
    for _ in range(3):
        assert refused(premises, process.collect) == "MEDIA_STORE_UNAVAILABLE"
        assert list(premises.stored()) == stubborn
        assert not premises.run(process.collect()), "it is not tried again at once"
        premises.pass_time(11)

    stubborn.clear()
    mended = True
    collect_all(premises, process)

    assert premises.stored() == {}
    assert rows(process.store, "SELECT * FROM discard") == []


@pytest.mark.parametrize("kind", ["cancelled", "late cancelled", "away", "full", "late away"])
@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
def test_an_upload_that_fails_takes_no_room_and_its_blobs_go_soon(premises: Premises, kind: str, moment: int) -> None:
    process = premises.begin_process()
    process.fate.mishap = Mishap(kind, moment)
    with suppress(errors.Error, asyncio.CancelledError):
        premises.run(process.upload(PICTURE), ANA)
    premises.settle(process)
    assert rows(process.store, "SELECT COUNT(*) FROM media") == [(0,)]
    assert premises.run(process.store.read(discards.count_held, ANA)) == 0

    collect_all(premises, process)

    assert premises.stored() == {}
    # What is on its way still arrives later, and goes, too.
    premises.run(premises.arrive())
    premises.pass_time(2 * HOUR)
    collect_all(premises, process)
    assert premises.stored() == {}
    assert rows(process.store, "SELECT * FROM discard") == []


def test_an_upload_of_which_nobody_hears_that_it_was_made_stays(premises: Premises) -> None:
    process = premises.begin_process()
    process.fate.mishap = Mishap("cancelled", 6)
    with pytest.raises(asyncio.CancelledError):
        premises.run(process.upload(PICTURE, request_id="once"), ANA)
    premises.settle(process)
    collect_all(premises, process)

    media = premises.run(process.upload(PICTURE, request_id="once"), ANA)

    assert rows(process.store, "SELECT id FROM media") == [(media.id,)]
    assert premises.stored() == dict([blobs_of(media)])


@pytest.mark.parametrize("moments", [4, 5, 6])
def test_no_image_is_made_of_a_folder_whose_deletion_has_begun(premises: Premises, moments: int) -> None:
    """Its upload took a day; and who began dies on the way."""
    process, collecting = premises.begin_process(), premises.begin_process()

    async def overtake() -> None:
        premises.pass_time(DAY)
        collecting.fate.mishap = Mishap("killed", moments)
        with suppress(Killed):
            await collecting.collect()

    process.fate.overtake = overtake
    process.fate.mishap = Mishap("overtaken", 4)
    assert refused(premises, lambda: process.upload(PICTURE)) == "UNAVAILABLE"

    premises.settle(process)
    premises.pass_time(11)
    collect_all(premises, process)
    assert premises.stored() == {}
    assert rows(process.store, "SELECT * FROM discard") == rows(process.store, "SELECT * FROM media") == []


def test_one_request_that_comes_twice_at_once_leaves_one_image(premises: Premises) -> None:
    process = premises.begin_process()

    async def both() -> list[media_pb2.Media]:
        return await asyncio.gather(*(process.upload(PICTURE, request_id="once") for _ in range(2)))

    first, second = premises.run(both(), ANA)
    premises.settle(process)
    collect_all(premises, process)

    assert first == second
    assert premises.stored() == dict([blobs_of(first)])
    assert premises.run(process.store.read(discards.count_held, ANA)) == 0


def test_the_upload_that_took_the_last_place_is_answered_when_it_comes_again(
    premises: Premises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "UNUSED_LIMIT", 2)
    process = premises.begin_process()
    premises.run(process.upload(PICTURE), ANA)
    last = premises.run(process.upload(PICTURE, request_id="last"), ANA)

    assert premises.run(process.upload(PICTURE, request_id="last"), ANA) == last
    assert refused(premises, lambda: process.upload(PICTURE)) == "MEDIA_LIMIT"
    assert premises.stored().keys() == folders_of(*_all_of(process, premises))


def test_a_direct_upload_has_its_place_until_it_is_finished(
    premises: Premises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "UNUSED_LIMIT", 1)
    process = premises.begin_process()
    upload_id, _ = _start(premises, process)
    assert refused(premises, lambda: process.upload(PICTURE)) == "MEDIA_LIMIT"

    finish = media_pb2.FinishUploadRequest(upload_id=upload_id)
    media = premises.run(process.media.FinishUpload(finish, None), ANA).media

    collect_all(premises, process)
    assert premises.stored() == dict([blobs_of(media)])
    assert refused(premises, lambda: process.upload(PICTURE)) == "MEDIA_LIMIT"


def test_a_form_that_is_posted_again_after_its_upload_was_finished_leaves_nothing(premises: Premises) -> None:
    process = premises.begin_process()
    upload_id, folder = _start(premises, process)
    finish = media_pb2.FinishUploadRequest(upload_id=upload_id)
    media = premises.run(process.media.FinishUpload(finish, None), ANA).media
    collect_all(premises, process)
    assert premises.stored().keys() == folders_of(media)

    premises.run(premises.files.put(folder, [Blob(FILE, "image/png", PICTURE)]))
    premises.pass_time(2 * HOUR)
    collect_all(premises, process)

    assert premises.stored().keys() == folders_of(media)
    assert rows(process.store, "SELECT * FROM discard") == []


def test_an_upload_that_is_never_finished_goes_after_24_hours(premises: Premises) -> None:
    process = premises.begin_process()
    upload_id, folder = _start(premises, process)
    premises.pass_time(DAY - HOUR)
    collect_all(premises, process)
    assert premises.stored().keys() == {folder}

    premises.pass_time(HOUR)
    collect_all(premises, process)

    assert premises.stored() == {}
    finish = media_pb2.FinishUploadRequest(upload_id=upload_id)
    assert refused(premises, lambda: process.media.FinishUpload(finish, None)) == "UPLOAD_NOT_FOUND"


def test_who_downloads_what_is_deleted_meanwhile_is_told_that_it_is_not_there(premises: Premises) -> None:
    process = premises.begin_process()
    media = premises.run(process.upload(PICTURE), ANA)

    async def download() -> None:
        parts = process.media.DownloadMedia(media_pb2.DownloadMediaRequest(media_id=media.id), None)
        await anext(parts)
        await process.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=media.id), None)
        await process.collect()
        await anext(parts)

    assert refused(premises, download) == "MEDIA_NOT_FOUND"


def test_two_processes_that_collect_at_once_delete_everything_and_nothing_that_is_shown(premises: Premises) -> None:
    """In threads of their own, while a third one uploads and shows images."""
    maker = premises.begin_process()
    shown = [premises.run(maker.upload(PICTURE), ANA) for _ in range(10)]
    show(premises, maker, *shown[:10])
    failures: list[BaseException] = []
    done = threading.Event()

    def collect(process: Process) -> None:
        async def until_done() -> None:
            while not done.is_set() or await process.collect():
                await process.collect()
                await asyncio.sleep(0.005)

        try:
            asyncio.run(until_done())
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=collect, args=(premises.begin_process(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(30):
            media = premises.run(maker.upload(PICTURE), ANA)
            if number % 6:
                delete(premises, maker, media)
            else:
                show(premises, maker, media)
                shown.append(media)
    finally:
        done.set()
        for thread in threads:
            thread.join()

    assert not failures
    assert premises.stored() == dict(map(blobs_of, shown))
    assert rows(maker.store, "SELECT * FROM discard") == []


def _start(premises: Premises, process: Process) -> tuple[int, str]:
    """A direct upload, posted but not finished: its id and folder."""
    request = media_pb2.StartUploadRequest(content_type="image/png", size=len(PICTURE))
    started = premises.run(process.media.StartUpload(request, None), ANA)
    folder = started.url.rpartition("/")[2]
    premises.run(premises.files.put(folder, [Blob(FILE, "image/png", PICTURE)]))
    return started.upload_id, folder


def _all_of(process: Process, premises: Premises) -> list[media_pb2.Media]:
    requests = [media_pb2.GetMediaRequest(media_id=id) for (id,) in rows(process.store, "SELECT id FROM media")]
    return [premises.run(process.media.GetMedia(request, None), ANA).media for request in requests]

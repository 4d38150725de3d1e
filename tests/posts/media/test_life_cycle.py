"""The life of images against a model, in random steps: none that is shown loses a blob, and nothing else is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pytest

from chassis import clock, errors, tombstones
from chassis.tombstones import USER
from insta.posts.v1 import media_pb2, posts_pb2
from services.posts.media import records
from services.posts.media.blob_store import Blob, BlobStoreError
from services.posts.media.workshop import Workshop
from tests.people import small_picture
from tests.posts.media.mishaps import (
    DAY,
    FILE,
    HOUR,
    Killed,
    Mishap,
    Premises,
    Process,
    blobs_of,
    rows,
)

pytestmark = pytest.mark.sqlite

Result = TypeVar("Result")
LIVES = 40
LIVES_A_TEST = 10
STEPS = 60
PEOPLE = 3
# The reason that who is gone is told.
GONE = "TOKEN_INVALID"
PICTURE = small_picture()
KINDS = ["killed", "cancelled", "away", "full", "late killed", "late cancelled", "late away", "overtaken"]
# Of an upload there are seven moments, of a direct one eight.
MOMENTS = 8


@dataclass
class Image:
    """An image that was answered, or found."""

    owner_id: int
    folder: str
    blobs: frozenset[str]
    expire_time: int
    post_id: int | None = None
    avatar: bool = False

    @property
    def shown(self) -> bool:
        return self.post_id is not None or self.avatar


@dataclass
class Form:
    """A direct upload that was started."""

    owner_id: int
    folder: str
    expire_time: int
    finished: bool = False


class Life:
    """Two processes of the posts service, in which people do what they can do, and to which everything happens.

    Attributes:
        steps: What happened so far.
    """

    def __init__(self, premises: Premises, seed: int) -> None:
        self.steps: list[str] = []
        self._random = random.Random(seed)
        self._premises = premises
        self._processes = [self._premises.begin_process() for _ in range(2)]
        self._images: dict[int, Image] = {}
        self._posts: dict[int, int] = {}
        self._forms: dict[int, Form] = {}
        self._gone: set[int] = set()

    def step(self) -> None:
        """Let something happen, and see that all is well."""
        (chosen,) = self._random.choices(list(_STEPS), weights=list(_STEPS.values()))
        self.steps.append(chosen.__name__)
        chosen(self)
        self.rows_are_as_the_model_says()
        self.each_image_has_its_blobs()
        self.each_folder_is_referred_to_or_going_to_be_deleted()
        self.nobody_sees_what_they_may_not()

    # What people do.

    # What people do.

    def upload(self) -> None:
        process = self._pick_process()
        self._make(process, self._pick_person(), lambda: process.upload(PICTURE), self._pick_mishap())

    def upload_twice_at_once(self) -> None:
        """The same request: one of both makes the image."""
        # A day later it is another request.
        process, mishap = self._pick_process(), self._pick_mishap(KINDS[:-1])
        request_id = f"at-{clock.now()}"

        async def both() -> media_pb2.Media:
            uploads = (process.upload(PICTURE, request_id=request_id) for _ in range(2))
            outcomes = await asyncio.gather(*uploads, return_exceptions=True)
            made = [outcome for outcome in outcomes if isinstance(outcome, media_pb2.Media)]
            for failure in outcomes:
                if isinstance(failure, BaseException) and not (mishap and made):
                    raise failure
            assert made[0] == made[-1]
            return made[0]

        self._make(process, self._pick_person(), both, mishap)

    def start_upload(self) -> None:
        who = self._pick_person()
        request = media_pb2.StartUploadRequest(content_type="image/png", size=len(PICTURE))
        outcome = self._do(process := self._pick_process(), who, lambda: process.media.StartUpload(request, None))
        self._expect(GONE if who in self._gone else "", outcome)
        if isinstance(outcome, media_pb2.StartUploadResponse):
            folder = outcome.url.rpartition("/")[2]
            self._forms[outcome.upload_id] = Form(who, folder, outcome.expire_time.ToMicroseconds())

    def post_form(self) -> None:
        if self._forms:
            self._post(self._random.choice(list(self._forms.values())))

    def finish_upload(self) -> None:
        if not self._forms:
            return
        upload_id, form = self._pick(self._forms)
        self._post(form)
        self._finish(upload_id, form, self._pick_mishap())
        if self._random.random() < 0.5:
            self._post(form)
            self._finish(upload_id, form, None)

    def create_post(self) -> None:
        process, who = self._pick_process(), self._pick_person()
        media_ids = self._pick_images(who)
        request = posts_pb2.CreatePostRequest(title="First light", media_ids=media_ids)
        outcome = self._do(process, who, lambda: process.posts.CreatePost(request, None))
        self._expect(GONE if who in self._gone else self._right_to_show(who, None, media_ids), outcome)
        if isinstance(outcome, posts_pb2.CreatePostResponse):
            self._posts[outcome.post.id] = who
            self._show(outcome.post.id, media_ids)

    def update_post(self) -> None:
        if not self._posts:
            return
        process, (post_id, who) = self._pick_process(), self._pick(self._posts)
        media_ids = self._pick_images(who)
        request = posts_pb2.UpdatePostRequest(
            post=posts_pb2.Post(id=post_id, media=[media_pb2.Media(id=media_id) for media_id in media_ids])
        )
        request.update_mask.paths.append("media")
        outcome = self._do(process, who, lambda: process.posts.UpdatePost(request, None))
        self._expect(self._right_to_show(who, post_id, media_ids), outcome, who)
        if isinstance(outcome, posts_pb2.UpdatePostResponse):
            self._show(post_id, media_ids)

    def delete_post(self) -> None:
        if not self._posts:
            return
        process, (post_id, who) = self._pick_process(), self._pick(self._posts)
        request = posts_pb2.DeletePostRequest(post_id=post_id)
        self._expect("", self._do(process, who, lambda: process.posts.DeletePost(request, None)), who)
        del self._posts[post_id]
        self._images = {id: image for id, image in self._images.items() if image.post_id != post_id}

    def set_avatar(self) -> None:
        if not self._images:
            return
        process, (media_id, image) = self._pick_process(), self._pick(self._images)
        request = media_pb2.SetAvatarRequest(media_id=media_id)
        outcome = self._do(process, image.owner_id, lambda: process.media.SetAvatar(request, None))
        self._expect("MEDIA_IN_USE" if image.post_id else "", outcome, image.owner_id)
        if isinstance(outcome, media_pb2.SetAvatarResponse) and not image.avatar:
            self._hide_avatar(image.owner_id)
            image.avatar = True

    def remove_avatar(self) -> None:
        process, who = self._pick_process(), self._pick_person()
        request = media_pb2.RemoveAvatarRequest()
        self._expect("", self._do(process, who, lambda: process.media.RemoveAvatar(request, None)))
        self._hide_avatar(who)

    def delete_media(self) -> None:
        if not self._images:
            return
        process, (media_id, image) = self._pick_process(), self._pick(self._images)
        who = image.owner_id if self._random.random() < 0.8 else self._pick_person()
        request = media_pb2.DeleteMediaRequest(media_id=media_id)
        outcome = self._do(process, who, lambda: process.media.DeleteMedia(request, None))
        expected = "MEDIA_IN_USE" if image.shown else ""
        if who != image.owner_id:
            expected = "NOT_OWNER" if image.shown else "MEDIA_NOT_FOUND"
        self._expect(expected, outcome, image.owner_id)
        if isinstance(outcome, media_pb2.DeleteMediaResponse):
            del self._images[media_id]

    def delete_account(self) -> None:
        if len(self._gone) < PEOPLE - 1:
            who = self._pick_person()
            self._premises.run(self._pick_process().store.write(tombstones.add, USER, who))
            self._gone.add(who)

    # What happens beside them.

    def erase(self) -> None:
        process, mishap = self._pick_process(), self._pick_mishap()
        outcome = self._do(process, 0, process.erase, mishap)
        assert mishap or not isinstance(outcome, errors.Error)

    def collect(self) -> None:
        process, mishap = self._pick_process(), self._pick_mishap()
        outcome = self._do(process, 0, process.collect, mishap)
        assert mishap or not isinstance(outcome, errors.Error)

    def collect_in_both_at_once(self) -> None:
        """The system gives a lease to one at a time; but who had it may think so for some time."""

        async def both() -> None:
            await asyncio.gather(*(process.collect() for process in self._processes))

        self._premises.run(both())

    def time_passes(self) -> None:
        # Nothing is on its way for long.
        self._premises.run(self._premises.arrive())
        self._premises.pass_time(self._random.choice([1, 3, 25]) * HOUR)

    def what_is_late_arrives(self) -> None:
        self._premises.run(self._premises.arrive())

    # What holds all the time.

    def rows_are_as_the_model_says(self) -> None:
        found = {id: rest for id, *rest in self._rows("SELECT id, owner_id, folder, post_id, avatar_of FROM media")}
        self._forget_what_may_be_gone(found)
        expected = {
            id: [image.owner_id, image.folder, image.post_id, image.owner_id if image.avatar else None]
            for id, image in self._images.items()
        }
        assert found == expected

    def each_image_has_its_blobs(self) -> None:
        stored = self._premises.stored()
        for image in self._images.values():
            assert stored.get(image.folder) == image.blobs, image

    def each_folder_is_referred_to_or_going_to_be_deleted(self) -> None:
        discards = {folder for (folder,) in self._rows("SELECT folder FROM discard")}
        images = {image.folder for image in self._images.values()}
        uploads = {folder for (folder,) in self._rows("SELECT folder FROM upload")}
        assert self._premises.stored().keys() <= discards | images
        assert uploads <= discards
        assert not discards & images

    def nobody_sees_what_they_may_not(self) -> None:
        process = self._processes[0]
        for media_id, image in self._images.items():
            for who in (image.owner_id, image.owner_id % PEOPLE + 1):
                get = media_pb2.GetMediaRequest(media_id=media_id)
                outcome = self._do(process, who, partial(process.media.GetMedia, get, None))
                may = image.shown or who == image.owner_id
                self._expect("" if may else "MEDIA_NOT_FOUND", outcome)

    def end(self) -> None:
        """In the end nothing is left but what is shown."""
        self._premises.run(self._premises.arrive())
        first, second = self._processes
        while self._premises.run(first.erase()):
            pass
        for _ in range(2):
            self._premises.pass_time(DAY + HOUR)
            while self._premises.run(second.collect()):
                pass
        self.rows_are_as_the_model_says()
        assert all(image.shown for image in self._images.values())
        assert self._premises.stored() == {image.folder: image.blobs for image in self._images.values()}
        assert self._rows("SELECT * FROM discard") == self._rows("SELECT * FROM upload") == []
        assert not {image.owner_id for image in self._images.values()} & self._gone
        for who in self._gone:
            erasure = self._premises.run(first.posts.GetErasure(posts_pb2.GetErasureRequest(user_id=who), None))
            assert erasure.erased
            assert not any(erasure.left.values())

    # How that is done.

    def _make(
        self,
        process: Process,
        who: int,
        make: Callable[[], Coroutine[Any, Any, media_pb2.Media]],
        mishap: Mishap | None,
        *reasons: str,
    ) -> bool:
        """Make an image, or leave it: what was not answered may have been made all the same. Returns whether it was."""
        outcome = self._do(process, who, make, mishap)
        if isinstance(outcome, errors.Error) and mishap is None:
            assert outcome.reason_name in ((GONE, *reasons) if who in self._gone else reasons)
        known = ",".join(map(str, self._images))
        found = self._rows(f"SELECT id FROM media WHERE id NOT IN ({known}) AND owner_id = {who}")
        if not found:
            # It may have been made a day ago.
            assert mishap or not isinstance(outcome, media_pb2.Media)
            return isinstance(outcome, media_pb2.Media)
        ((media_id,),) = found
        get = media_pb2.GetMediaRequest(media_id=media_id)
        media = self._premises.run(self._processes[0].media.GetMedia(get, None), who).media
        assert not isinstance(outcome, media_pb2.Media) or outcome == media
        folder, blobs = blobs_of(media)
        self._images[media.id] = Image(who, folder, blobs, self._in_a_day())
        return True

    def _finish(self, upload_id: int, form: Form, mishap: Mishap | None) -> None:
        process = self._pick_process()
        request = media_pb2.FinishUploadRequest(upload_id=upload_id)

        async def finish() -> media_pb2.Media:
            return (await process.media.FinishUpload(request, None)).media

        made = self._make(process, form.owner_id, finish, mishap, "UPLOAD_NOT_FOUND", "UPLOAD_MISSING")
        assert not (made and form.finished), "one upload is two images"
        form.finished |= made

    def _post(self, form: Form) -> None:
        """As long as a form is good, it can be posted, also a second time."""
        if clock.now() < form.expire_time:
            self._premises.run(self._premises.files.put(form.folder, [Blob(FILE, "image/png", PICTURE)]))

    def _do(
        self, process: Process, who: int, work: Callable[[], Coroutine[Any, Any, Result]], mishap: Mishap | None = None
    ) -> Result | errors.Error | None:
        """What somebody is answered. None: nothing, as it was cancelled, or the process died."""
        process.fate.mishap = mishap and Mishap(mishap.kind, mishap.after)
        process.fate.overtake = partial(self._a_day_passes, process)
        try:
            return self._premises.run(work(), who)
        except errors.Error as error:
            return error
        except BlobStoreError:
            raise AssertionError("not told as an error of the call") from None
        except (Killed, asyncio.CancelledError):
            return None
        finally:
            process.fate.mishap = None
            if process.fate.dead:
                self._replace(process)
            else:
                self._premises.settle(process)

    async def _a_day_passes(self, overtaken: Process) -> None:
        """The other process collects, and is killed before it has written down that it did."""
        await self._premises.arrive()
        self._premises.pass_time(DAY + HOUR)
        (other,) = (process for process in self._processes if process is not overtaken)
        other.fate.mishap = Mishap("killed", 4)
        try:
            await other.collect()
        except Killed:
            self._replace(other)
        other.fate.mishap = None

    def _replace(self, process: Process) -> None:
        self._processes[self._processes.index(process)] = self._premises.begin_process()

    def _expect(self, reason: str, outcome: Any, owner_id: int = 0) -> None:
        """What somebody was answered has to be this. Whose account is gone may find that everything is, too."""
        found = outcome.reason_name if isinstance(outcome, errors.Error) else ""
        if owner_id in self._gone:
            assert found in (reason, GONE, "POST_NOT_FOUND", "MEDIA_NOT_FOUND")
        else:
            assert found == reason

    def _right_to_show(self, who: int, post_id: int | None, media_ids: list[int]) -> str:
        """Why somebody may not show images in a post; nothing if they may."""
        for image in (self._images[media_id] for media_id in media_ids):
            if image.owner_id != who:
                return "NOT_OWNER" if image.shown else "MEDIA_NOT_FOUND"
            if image.avatar or image.post_id not in (None, post_id):
                return "MEDIA_IN_USE"
        return ""

    def _show(self, post_id: int, media_ids: list[int]) -> None:
        for media_id, image in self._images.items():
            if media_id in media_ids:
                image.post_id = post_id
            elif image.post_id == post_id:
                image.post_id, image.expire_time = None, self._in_a_day()

    def _hide_avatar(self, who: int) -> None:
        for image in self._images.values():
            if image.avatar and image.owner_id == who:
                image.avatar, image.expire_time = False, self._in_a_day()

    def _in_a_day(self) -> int:
        return clock.now() + records.KEPT_MICROS

    def _expired(self, image: Image) -> bool:
        return not image.shown and image.expire_time <= clock.now()

    def _forget_what_may_be_gone(self, found: Container[int]) -> None:
        for media_id, image in list(self._images.items()):
            if media_id not in found and (image.owner_id in self._gone or self._expired(image)):
                del self._images[media_id]

    def _pick_process(self) -> Process:
        return self._random.choice(self._processes)

    def _pick_person(self) -> int:
        return self._random.randint(1, PEOPLE)

    def _pick_mishap(self, kinds: Sequence[str] = KINDS) -> Mishap | None:
        if self._random.random() < 0.4:
            return None
        mishap = Mishap(self._random.choice(kinds), self._random.randrange(MOMENTS))
        self.steps[-1] += f" ({mishap.kind} after {mishap.after})"
        return mishap

    def _pick(self, among: Mapping[int, Result]) -> tuple[int, Result]:
        return self._random.choice(list(among.items()))

    def _pick_images(self, owner_id: int) -> list[int]:
        """Some of somebody, or now and then of anybody."""
        of_anybody = self._random.random() < 0.2
        images = [id for id, image in self._images.items() if of_anybody or image.owner_id == owner_id]
        return self._random.sample(images, min(len(images), self._random.randrange(4)))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self._processes[0].store, query)


# How often each of them happens, beside the others.
_STEPS = {
    Life.upload: 4,
    Life.upload_twice_at_once: 1,
    Life.start_upload: 1,
    Life.post_form: 1,
    Life.finish_upload: 2,
    Life.create_post: 3,
    Life.update_post: 2,
    Life.delete_post: 1,
    Life.set_avatar: 2,
    Life.remove_avatar: 0.5,
    Life.delete_media: 2,
    Life.delete_account: 0.3,
    Life.erase: 1,
    Life.collect: 4,
    Life.collect_in_both_at_once: 1,
    Life.time_passes: 2,
    Life.what_is_late_arrives: 1,
}


@pytest.mark.parametrize("first", range(0, LIVES, LIVES_A_TEST))
def test_what_is_shown_has_its_blobs_and_nothing_else_is_left(
    first: int, loop_and_its_workshop: tuple[asyncio.AbstractEventLoop, Workshop]
) -> None:
    for seed in range(first, first + LIVES_A_TEST):
        with closing(Premises(*loop_and_its_workshop)) as premises:
            life = Life(premises, seed)
            try:
                for _ in range(STEPS):
                    life.step()
                life.end()
            except Exception as failure:
                failure.add_note(f"in the life {seed}:\n" + "\n".join(life.steps))
                raise

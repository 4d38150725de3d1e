"""The life of images against a model: none that is shown ever loses a blob, and nothing else is left, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from chassis import clock, errors, tombstones
from chassis.tombstones import USER
from insta.posts.v1 import media_pb2, posts_pb2
from services.posts.media import records
from services.posts.media.blob_store import Blob
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
    loop_and_workshop,
    rows,
)

Result = TypeVar("Result")
EXAMPLES = 60
STEPS = 40
PEOPLE = 3
# The reason that who is gone is told.
GONE = "TOKEN_INVALID"
PICTURE = small_picture()

anyone = st.integers(1, PEOPLE)
# A place among all that there are.
anything = st.integers(0, 7)
some = st.lists(anything, max_size=3)
processes = st.integers(0, 1)
hours = st.sampled_from([1, 3, 25])
KINDS = ["killed", "cancelled", "away", "full", "late killed", "late cancelled", "late away"]
# Of an upload there are seven moments, of a direct one eight: these beyond are those of steps that follow.
mishaps = st.none() | st.builds(Mishap, st.sampled_from(KINDS), st.integers(0, 7))


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


@dataclass
class Model:
    """What there has to be."""

    images: dict[int, Image] = field(default_factory=dict)
    posts: dict[int, int] = field(default_factory=dict)
    forms: dict[int, Form] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)


class Life(RuleBasedStateMachine):
    """Two processes of the posts service, in which people do what they can do, and to which everything happens."""

    def __init__(self, begin: Callable[[], Premises]) -> None:
        super().__init__()
        self._premises = begin()
        self._processes = [self._premises.begin_process() for _ in range(2)]
        self._model = Model()
        self._add(1, self._premises.run(self._processes[0].upload(PICTURE), 1))

    # What people do.

    @rule(who=anyone, where=processes, mishap=mishaps)
    def upload(self, who: int, where: int, mishap: Mishap | None) -> None:
        process = self._processes[where]
        self._make(who, where, mishap, lambda: process.upload(PICTURE))

    @rule(who=anyone, where=processes, mishap=mishaps)
    def upload_twice_at_once(self, who: int, where: int, mishap: Mishap | None) -> None:
        """The same request: one of both makes the image."""
        process = self._processes[where]
        request_id = f"at-{clock.now()}"

        async def both() -> media_pb2.Media:
            uploads = (process.upload(PICTURE, request_id=request_id) for _ in range(2))
            first, second = await asyncio.gather(*uploads, return_exceptions=True)
            for outcome in (first, second):
                if isinstance(outcome, BaseException) and mishap is None:
                    raise outcome
            made = [outcome for outcome in (first, second) if isinstance(outcome, media_pb2.Media)]
            if not made:
                assert isinstance(first, BaseException)
                raise first
            assert all(media == made[0] for media in made)
            return made[0]

        self._make(who, where, mishap, both)

    @rule(who=anyone, where=processes)
    def start_upload(self, who: int, where: int) -> None:
        request = media_pb2.StartUploadRequest(content_type="image/png", size=len(PICTURE))
        outcome = self._do(who, where, lambda: self._processes[where].media.StartUpload(request, None))
        if isinstance(outcome, media_pb2.StartUploadResponse):
            folder = outcome.url.rpartition("/")[2]
            self._model.forms[outcome.upload_id] = Form(who, folder, outcome.expire_time.ToMicroseconds())

    @precondition(lambda self: self._model.forms)
    @rule(what=anything)
    def post_form(self, what: int) -> None:
        """Whenever the form is good, also a second time."""
        _, form = self._some(self._model.forms, what)
        if clock.now() < form.expire_time:
            self._premises.run(self._premises.files.put(form.folder, [Blob(FILE, "image/png", PICTURE)]))

    @precondition(lambda self: self._model.forms)
    @rule(what=anything, where=processes, mishap=mishaps)
    def finish_upload(self, what: int, where: int, mishap: Mishap | None) -> None:
        upload_id, form = self._some(self._model.forms, what)
        request = media_pb2.FinishUploadRequest(upload_id=upload_id)

        async def finish() -> media_pb2.Media:
            return (await self._processes[where].media.FinishUpload(request, None)).media

        self._make(form.owner_id, where, mishap, finish, "UPLOAD_NOT_FOUND", "UPLOAD_MISSING")

    @rule(who=anyone, where=processes, what=some)
    def create_post(self, who: int, where: int, what: list[int]) -> None:
        media_ids = self._some_images(what)
        request = posts_pb2.CreatePostRequest(title="First light", media_ids=media_ids)
        outcome = self._do(who, where, lambda: self._processes[where].posts.CreatePost(request, None))
        expected = GONE if who in self._model.gone else self._right_to_show(who, None, media_ids)
        self._expect(expected, outcome)
        if isinstance(outcome, posts_pb2.CreatePostResponse):
            self._model.posts[outcome.post.id] = who
            self._show(outcome.post.id, media_ids)

    @precondition(lambda self: self._model.posts)
    @rule(where=processes, post=anything, what=some)
    def update_post(self, where: int, post: int, what: list[int]) -> None:
        post_id, author_id = self._some(self._model.posts, post)
        media_ids = self._some_images(what)
        request = posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post_id), update_mask={"paths": ["media"]})
        for media_id in media_ids:
            request.post.media.add(id=media_id)
        outcome = self._do(author_id, where, lambda: self._processes[where].posts.UpdatePost(request, None))
        self._expect(self._right_to_show(author_id, post_id, media_ids), outcome, author_id)
        if isinstance(outcome, posts_pb2.UpdatePostResponse):
            self._show(post_id, media_ids)

    @precondition(lambda self: self._model.posts)
    @rule(where=processes, post=anything)
    def delete_post(self, where: int, post: int) -> None:
        post_id, author_id = self._some(self._model.posts, post)
        request = posts_pb2.DeletePostRequest(post_id=post_id)
        outcome = self._do(author_id, where, lambda: self._processes[where].posts.DeletePost(request, None))
        self._expect("", outcome, author_id)
        del self._model.posts[post_id]
        for media_id in [id for id, image in self._model.images.items() if image.post_id == post_id]:
            del self._model.images[media_id]

    @precondition(lambda self: self._model.images)
    @rule(where=processes, what=anything)
    def set_avatar(self, where: int, what: int) -> None:
        media_id, image = self._some(self._model.images, what)
        request = media_pb2.SetAvatarRequest(media_id=media_id)
        outcome = self._do(image.owner_id, where, lambda: self._processes[where].media.SetAvatar(request, None))
        self._expect("MEDIA_IN_USE" if image.post_id else "", outcome, image.owner_id)
        if isinstance(outcome, media_pb2.SetAvatarResponse) and not image.avatar:
            self._hide_avatar(image.owner_id)
            image.avatar = True

    @rule(who=anyone, where=processes)
    def remove_avatar(self, who: int, where: int) -> None:
        request = media_pb2.RemoveAvatarRequest()
        self._expect("", self._do(who, where, lambda: self._processes[where].media.RemoveAvatar(request, None)))
        self._hide_avatar(who)

    @precondition(lambda self: self._model.images)
    @rule(who=anyone, where=processes, what=anything)
    def delete_media(self, who: int, where: int, what: int) -> None:
        media_id, image = self._some(self._model.images, what)
        request = media_pb2.DeleteMediaRequest(media_id=media_id)
        outcome = self._do(who, where, lambda: self._processes[where].media.DeleteMedia(request, None))
        expected = "MEDIA_IN_USE" if image.shown else ""
        if who != image.owner_id:
            expected = "NOT_OWNER" if image.shown else "MEDIA_NOT_FOUND"
        self._expect(expected, outcome, image.owner_id)
        if outcome == media_pb2.DeleteMediaResponse():
            del self._model.images[media_id]

    @precondition(lambda self: len(self._model.gone) < PEOPLE - 1)
    @rule(who=anyone, where=processes, steps=st.integers(0, 2))
    def delete_account(self, who: int, where: int, steps: int) -> None:
        self._premises.run(self._processes[where].store.write(tombstones.add, USER, who))
        self._model.gone.add(who)
        for _ in range(steps):
            self._premises.run(self._processes[where].erase())

    # What happens beside them.

    @rule(where=processes, mishap=mishaps)
    def erase(self, where: int, mishap: Mishap | None) -> None:
        self._try(where, mishap, lambda: self._processes[where].erase())

    @rule(where=processes, mishap=mishaps, steps=st.integers(1, 3))
    def collect(self, where: int, mishap: Mishap | None, steps: int) -> None:
        async def collect() -> None:
            for _ in range(steps):
                await self._processes[where].collect()

        self._try(where, mishap, collect)

    @rule()
    def collect_in_both_at_once(self) -> None:
        """The system gives a lease to one at a time; but it may think that it is alone for some time."""

        async def both() -> None:
            await asyncio.gather(*(process.collect() for process in self._processes))

        self._premises.run(both())

    @rule(passing=hours)
    def time_passes(self, passing: int) -> None:
        if passing > 1:
            # Nothing is on its way for longer.
            self._premises.arrive()
        self._premises.pass_time(passing * HOUR)

    @rule()
    def what_is_late_arrives(self) -> None:
        self._premises.arrive()

    # What holds all the time.

    @invariant()
    def all_is_well(self) -> None:
        self.rows_are_as_the_model_says()
        self.each_image_has_its_blobs()
        self.each_folder_is_referred_to_or_going_to_be_deleted()
        self.nobody_sees_what_they_may_not()

    def rows_are_as_the_model_says(self) -> None:
        found = {id: rest for id, *rest in self._rows("SELECT id, owner_id, folder, post_id, avatar_of FROM media")}
        self._forget_what_may_be_gone(found)
        expected = {
            id: [image.owner_id, image.folder, image.post_id, image.owner_id if image.avatar else None]
            for id, image in self._model.images.items()
        }
        assert found == expected

    def each_image_has_its_blobs(self) -> None:
        stored = self._premises.stored()
        for image in self._model.images.values():
            assert stored.get(image.folder) == image.blobs, image

    def each_folder_is_referred_to_or_going_to_be_deleted(self) -> None:
        discards = {folder for (folder,) in self._rows("SELECT folder FROM discard")}
        images = {image.folder for image in self._model.images.values()}
        uploads = {folder for (folder,) in self._rows("SELECT folder FROM upload")}
        assert self._premises.stored().keys() <= discards | images
        assert uploads <= discards
        assert not discards & images

    def nobody_sees_what_they_may_not(self) -> None:
        for media_id, image in self._model.images.items():
            for who in (image.owner_id, image.owner_id % PEOPLE + 1):
                get = media_pb2.GetMediaRequest(media_id=media_id)
                outcome = self._do(who, 0, lambda get=get: self._processes[0].media.GetMedia(get, None))
                may = image.shown or who == image.owner_id
                self._expect("" if may else "MEDIA_NOT_FOUND", outcome)

    def teardown(self) -> None:
        """In the end nothing is left but what is shown."""
        try:
            self._premises.arrive()
            first, second = self._processes
            while self._premises.run(first.erase()):
                pass
            for _ in range(2):
                self._premises.pass_time(DAY + HOUR)
                while self._premises.run(second.collect()):
                    pass
            self.rows_are_as_the_model_says()
            assert all(image.shown for image in self._model.images.values())
            assert self._premises.stored() == {image.folder: image.blobs for image in self._model.images.values()}
            assert self._rows("SELECT * FROM discard") == self._rows("SELECT * FROM upload") == []
            assert not {image.owner_id for image in self._model.images.values()} & self._model.gone
            for who in self._model.gone:
                erasure = self._premises.run(first.posts.GetErasure(posts_pb2.GetErasureRequest(user_id=who), None))
                assert erasure.erased
                assert not any(erasure.left.values())
        finally:
            self._premises.close()

    # How that is done.

    def _make(
        self,
        who: int,
        where: int,
        mishap: Mishap | None,
        make: Callable[[], Coroutine[Any, Any, media_pb2.Media]],
        *reasons: str,
    ) -> None:
        """Make an image, or leave it: what was not answered may have been made all the same."""
        outcome = self._do(who, where, make, mishap)
        if isinstance(outcome, media_pb2.Media):
            self._add(who, outcome)
        elif isinstance(outcome, errors.Error) and mishap is None:
            assert outcome.reason_name in (GONE, *reasons)
        known = ",".join(map(str, self._model.images))
        for (media_id,) in self._rows(f"SELECT id FROM media WHERE id NOT IN ({known}) AND owner_id = {who}"):
            assert outcome is None or isinstance(outcome, errors.Error), "nobody was told of it"
            get = media_pb2.GetMediaRequest(media_id=media_id)
            self._add(who, self._premises.run(self._processes[where].media.GetMedia(get, None), who).media)

    def _do(
        self,
        who: int,
        where: int,
        work: Callable[[], Coroutine[Any, Any, Result]],
        mishap: Mishap | None = None,
    ) -> Result | errors.Error | None:
        """What somebody is answered. None: nothing, as it was cancelled, or the process died."""
        process = self._processes[where]
        process.fate.mishap = mishap and Mishap(mishap.kind, mishap.after)
        try:
            return self._premises.run(work(), who)
        except errors.Error as error:
            return error
        except (Killed, asyncio.CancelledError):
            return None
        finally:
            process.fate.mishap = None
            if process.fate.dead:
                self._processes[where] = self._premises.begin_process()
            else:
                self._premises.settle(process)

    def _try(self, where: int, mishap: Mishap | None, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        outcome = self._do(0, where, work, mishap)
        assert mishap is not None or not isinstance(outcome, errors.Error)

    def _expect(self, reason: str, outcome: Any, owner_id: int = 0) -> None:
        """What somebody was answered has to be this. Whose account is gone may find that everything is, too."""
        found = outcome.reason_name if isinstance(outcome, errors.Error) else ""
        if owner_id in self._model.gone:
            assert found in (reason, GONE, "POST_NOT_FOUND", "MEDIA_NOT_FOUND")
        else:
            assert found == reason

    def _right_to_show(self, who: int, post_id: int | None, media_ids: list[int]) -> str:
        """Why somebody may not show images in a post; nothing if they may."""
        for image in (self._model.images[media_id] for media_id in media_ids):
            if image.owner_id != who:
                return "NOT_OWNER" if image.shown else "MEDIA_NOT_FOUND"
            if image.avatar or image.post_id not in (None, post_id):
                return "MEDIA_IN_USE"
        return ""

    def _add(self, who: int, media: media_pb2.Media) -> None:
        folder, blobs = blobs_of(media)
        self._model.images[media.id] = Image(who, folder, blobs, self._in_a_day())

    def _show(self, post_id: int, media_ids: list[int]) -> None:
        for media_id, image in self._model.images.items():
            if media_id in media_ids:
                image.post_id = post_id
            elif image.post_id == post_id:
                image.post_id, image.expire_time = None, self._in_a_day()

    def _hide_avatar(self, who: int) -> None:
        for image in self._model.images.values():
            if image.avatar and image.owner_id == who:
                image.avatar, image.expire_time = False, self._in_a_day()

    def _in_a_day(self) -> int:
        return clock.now() + records.KEPT_MICROS

    def _expired(self, image: Image) -> bool:
        return not image.shown and image.expire_time <= clock.now()

    def _forget_what_may_be_gone(self, found: Container[int]) -> None:
        for media_id, image in list(self._model.images.items()):
            if media_id not in found and (image.owner_id in self._model.gone or self._expired(image)):
                del self._model.images[media_id]

    def _some_images(self, places: list[int]) -> list[int]:
        """Each once: the contract wants that."""
        return list(dict.fromkeys(self._some(self._model.images, place)[0] for place in places if self._model.images))

    def _some(self, among: dict[int, Result], place: int) -> tuple[int, Result]:
        return list(among.items())[place % len(among)]

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self._processes[0].store, query)


def test_what_is_shown_has_its_blobs_and_nothing_else_is_left() -> None:
    with loop_and_workshop() as (loop, workshop):
        run_state_machine_as_test(
            lambda: Life(partial(Premises, loop, workshop)),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=True,
                deadline=None,
                # To make a counterexample smaller takes a minute: add Phase.shrink when there is one.
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )

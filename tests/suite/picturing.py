"""People who upload, show and delete images while processes are killed, each of whom remembers what was answered."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import random
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from chassis.settings import from_environment
from insta.gateway.v1 import accounts_pb2, media_pb2, posts_pb2
from tests import databases
from tests.people import People, Person, small_picture, until, upload
from tests.running import PASSWORD, RunningSuite
from tests.suite.killing import there

PHOTOGRAPHERS = 5
# More than a person needs, and far fewer than are allowed.
_MOST_UNUSED = 12
_MOST_ASKED_FOR = 100


@dataclass
class _Photographer:
    """Somebody, and the images of theirs that nothing shows, by id; those in posts, by the post's; and their avatar."""

    person: Person
    unused: dict[int, media_pb2.Media] = field(default_factory=dict)
    posts: dict[int, list[media_pb2.Media]] = field(default_factory=dict)
    avatar: media_pb2.Media | None = None

    @property
    def shown(self) -> list[media_pb2.Media]:
        avatars = [self.avatar] if self.avatar else []
        return [*itertools.chain.from_iterable(self.posts.values()), *avatars]


class Photographers:
    """Clients that change images, each request under an id, and send it again until it is answered.

    Attributes:
        answered: How many requests were.
        deleted: Images whose deletion was answered.
    """

    def __init__(self, people: People, seed: int) -> None:
        self.answered = 0
        self.deleted: list[media_pb2.Media] = []
        self._people = people
        self._random = random.Random(seed)
        self._everybody: list[_Photographer] = []
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count()

    async def start(self) -> None:
        """Begin."""
        self._everybody = [_Photographer(await self._people.join()) for _ in range(PHOTOGRAPHERS)]
        self._tasks = [asyncio.create_task(self._live(who)) for who in self._everybody]
        # Does nothing but what it is told.
        self._everybody.append(_Photographer(await self._people.join()))

    async def go_on(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        before = self.answered

        async def enough() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return self.answered >= before + count

        await until(enough, seconds=60)

    async def stop(self) -> None:
        """Wait until everything that was sent is answered; one of them then deletes their account."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        leaving = self._everybody.pop(0)
        await there(lambda: leaving.person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD)))
        self.deleted += [*leaving.shown, *leaving.unused.values()]

    async def see_everything(self) -> None:
        """One call to each part that images need."""
        media = await self._upload(self._everybody[-1])
        await self._downloaded(self._everybody[-1].person, media)

    @property
    def shown(self) -> list[media_pb2.Media]:
        """Images that posts and avatars show."""
        return [media for who in self._everybody for media in who.shown]

    async def check(self, suite: RunningSuite) -> None:
        """What is there can be seen whole, over gRPC and HTTP; what was deleted cannot, soon."""
        for who in self._everybody:
            stranger = self._everybody[0].person
            for media in who.shown:
                await self._downloaded(stranger, media)
            for media in who.unused.values():
                await self._downloaded(who.person, media)
        there_still = [*self.shown, *(media for who in self._everybody for media in who.unused.values())]
        addresses = {variant.url: variant.size for media in there_still for variant in media.variants}
        assert await asyncio.to_thread(sizes, suite, addresses) == addresses
        gone = [variant.url for media in self._sample(self.deleted) for variant in media.variants]

        async def found() -> list[str]:
            still = await asyncio.to_thread(sizes, suite, gone)
            return [address for address, size in still.items() if size is not None]

        await until(found, [], seconds=40)

    async def _live(self, who: _Photographer) -> None:
        deeds = [
            self._upload, self._upload, self._upload, self._hang_up, self._show, self._show, self._change,
            self._delete_post, self._delete_media, self._set_avatar, self._remove_avatar,
        ]  # fmt: skip
        while not self._stopped:
            await self._random.choice(deeds)(who)

    async def _upload(self, who: _Photographer) -> media_pb2.Media:
        if len(who.unused) >= _MOST_UNUSED:
            await self._delete_media(who)
        data, request_id = small_picture(), self._new_id()
        media: media_pb2.Media = await self._answered(lambda: who.person.upload(data, request_id=request_id))
        who.unused[media.id] = media
        return media

    async def _hang_up(self, who: _Photographer) -> None:
        """What comes of an upload nobody hears: an image that nothing will ever show, or nothing."""
        data = small_picture()
        call = who.person.media.UploadMedia(upload(data, content_type="image/png", size=len(data)))
        await asyncio.sleep(self._random.random() * 0.03)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def _show(self, who: _Photographer) -> None:
        chosen = self._some(who.unused.values())
        request = posts_pb2.CreatePostRequest(
            title="First light", media_ids=[media.id for media in chosen], request_id=self._new_id()
        )
        post = (await self._answered(lambda: who.person.posts.CreatePost(request))).post
        self._move(who, post.id, chosen)

    async def _change(self, who: _Photographer) -> None:
        if not who.posts:
            return
        post_id = self._random.choice(list(who.posts))
        chosen = self._some([*who.unused.values(), *who.posts[post_id]])
        request = posts_pb2.UpdatePostRequest(
            post=posts_pb2.Post(id=post_id, media=[media_pb2.Media(id=media.id) for media in chosen]),
            request_id=self._new_id(),
        )
        request.update_mask.paths.append("media")
        await self._answered(lambda: who.person.posts.UpdatePost(request))
        self._move(who, post_id, chosen)

    def _move(self, who: _Photographer, post_id: int, chosen: list[media_pb2.Media]) -> None:
        who.unused |= {media.id: media for media in who.posts.get(post_id, ())}
        for media in chosen:
            del who.unused[media.id]
        who.posts[post_id] = chosen

    async def _delete_post(self, who: _Photographer) -> None:
        if not who.posts:
            return
        post_id = self._random.choice(list(who.posts))
        request = posts_pb2.DeletePostRequest(post_id=post_id, request_id=self._new_id())
        await self._answered(lambda: who.person.posts.DeletePost(request))
        self.deleted += who.posts.pop(post_id)

    async def _delete_media(self, who: _Photographer) -> None:
        if not who.unused:
            return
        media_id = self._random.choice(list(who.unused))
        request = media_pb2.DeleteMediaRequest(media_id=media_id, request_id=self._new_id())
        await self._answered(lambda: who.person.media.DeleteMedia(request))
        self.deleted.append(who.unused.pop(media_id))

    async def _set_avatar(self, who: _Photographer) -> None:
        if not who.unused:
            return
        media_id = self._random.choice(list(who.unused))
        request = accounts_pb2.SetAvatarRequest(media_id=media_id, request_id=self._new_id())
        await self._answered(lambda: who.person.accounts.SetAvatar(request))
        self._hide_avatar(who)
        who.avatar = who.unused.pop(media_id)

    async def _remove_avatar(self, who: _Photographer) -> None:
        request = accounts_pb2.RemoveAvatarRequest(request_id=self._new_id())
        await self._answered(lambda: who.person.accounts.RemoveAvatar(request))
        self._hide_avatar(who)

    def _hide_avatar(self, who: _Photographer) -> None:
        if who.avatar:
            who.unused[who.avatar.id] = who.avatar
        who.avatar = None

    async def _answered(self, call: Callable[[], Awaitable[Any]]) -> Any:
        answer = await _there(call)
        self.answered += 1
        return answer

    async def _downloaded(self, person: Person, media: media_pb2.Media) -> None:
        """Somebody can see all of an image."""
        for variant in media.variants:
            request = media_pb2.DownloadMediaRequest(
                media_id=media.id, max_width=variant.width, content_type=variant.content_type
            )

            async def size(request: media_pb2.DownloadMediaRequest = request) -> int:
                return sum([len(part.chunk) async for part in person.media.DownloadMedia(request)])

            assert await there(size) == variant.size, f"image {media.id}"

    def _some(self, among: Iterable[media_pb2.Media]) -> list[media_pb2.Media]:
        chosen = list(among)
        return self._random.sample(chosen, min(len(chosen), self._random.randrange(4)))

    def _sample(self, images: list[media_pb2.Media]) -> list[media_pb2.Media]:
        return self._random.sample(images, min(len(images), _MOST_ASKED_FOR))

    def _new_id(self) -> str:
        return f"{os.getpid()}-{id(self)}-{next(self._ids)}"


async def _there(call: Callable[[], Awaitable[Any]]) -> Any:
    """The answer of a call that is sent again until it has one, as its request_id allows."""
    while True:
        try:
            return await there(call)
        except grpc.aio.AioRpcError as error:
            # An upload that meets the stop of a server may hear nothing, or that images are not processed any more.
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
            await asyncio.sleep(0.02)


def folders(media: Iterable[media_pb2.Media]) -> set[str]:
    """The folders of images in the store."""
    return {variant.url.split("/")[-2] for image in media for variant in image.variants}


def sizes(suite: RunningSuite, addresses: Iterable[str]) -> dict[str, int | None]:
    """How many bytes there are at each address. None: it is not found."""
    found: dict[str, int | None] = {}
    with closing(http.client.HTTPConnection(urllib.parse.urlsplit(suite.images_url).netloc, timeout=30)) as connection:
        for address in addresses:
            connection.request("GET", urllib.parse.urlsplit(address).path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status in (200, 404)
            found[address] = len(body) if answer.status == 200 else None
    return found


def folder_of_images(suite: RunningSuite) -> Path:
    """Where the suite stores images."""
    folder = from_environment(suite.environment).media_folder
    assert folder is not None
    return folder


def let_a_day_pass(suite: RunningSuite) -> None:
    """Make everything due of a suite that is stopped."""
    with closing(databases.Connection(databases.path_of(suite, "posts"))) as database:
        database.execute("UPDATE media SET expire_time = 1 WHERE expire_time IS NOT NULL")
        database.execute("UPDATE discard SET due_time = 1, open_until = 1")
    yesterday = time.time() - 24 * 3600
    for path in folder_of_images(suite).glob(".new-*"):
        os.utime(path, (yesterday, yesterday))


async def only_what_is_shown_is_left(suite: RunningSuite, photographers: Photographers) -> None:
    """The store holds the images that are shown, soon, and nothing else, and the database knows nothing else."""
    expected = folders(photographers.shown)

    async def stored() -> set[str]:
        return {path.name for path in folder_of_images(suite).iterdir()} - {".lock"}

    await until(stored, expected)

    async def rows() -> list[tuple[Any, ...]]:
        query = "SELECT (SELECT COUNT(*) FROM media), (SELECT COUNT(*) FROM discard)"
        return databases.rows(suite, "posts", query)

    await until(rows, [(len(expected), 0)])

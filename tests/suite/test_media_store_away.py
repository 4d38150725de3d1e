"""While the store of images is away nothing is lost: what could not be deleted is when it is there again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc

from insta.gateway.v1 import accounts_pb2, admin_pb2, media_pb2, posts_pb2
from tests import databases
from tests.people import People, Person, failure, until
from tests.running import PASSWORD, RunningSuite, running
from tests.suite.picturing import folder_of_images, folders, sizes


async def test_what_cannot_be_deleted_is_tried_until_it_is_gone_and_the_log_says_so(tmp_path: Path) -> None:
    with running("together", tmp_path) as suite:
        people = People(suite.address)
        ana, ben, boss = await people.join(), await people.join(), await people.superuser()
        kept, unused, shown, avatar, lasting = [await person.upload() for person in (ana, ana, ana, ben, ana)]
        await ana.post(media_ids=[kept.id])
        post = await ana.post(media_ids=[shown.id])
        await ben.accounts.SetAvatar(accounts_pb2.SetAvatarRequest(media_id=avatar.id))
        root = folder_of_images(suite)
        hidden = root.rename(root.with_name("hidden"))
        # Whoever runs the suite, no folder is below a file.
        root.touch()

        # All of this is done at once, though the blobs stay for the moment.
        await ana.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=unused.id))
        await ana.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id))
        await ben.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD))
        refusal = await failure(ana.upload())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "MEDIA_STORE_UNAVAILABLE")

        async def warnings() -> list[dict[str, Any]]:
            assert suite.log is not None
            lines = map(json.loads, suite.log.read_text().splitlines())
            return [line for line in lines if line.get("task") == "collector"]

        async def warned() -> bool:
            return bool(await warnings())

        await until(warned)
        told = (await warnings())[0]
        assert (told["level"], told["event"]) == ("warning", "background task cannot go on")
        assert "images could not be deleted" in told["error"]
        assert await _left_of(boss, ben.id)
        assert folders([kept, unused, shown, avatar, lasting]) == {path.name for path in hidden.iterdir()} - {".lock"}

        root.unlink()
        hidden.rename(root)

        async def stored() -> set[str]:
            return {path.name for path in root.iterdir()} - {".lock"}

        await until(stored, folders([kept, lasting]), seconds=30)
        await until(lambda: _left_of(boss, ben.id), 0)
        gone = [variant.url for media in (unused, shown, avatar) for variant in media.variants]
        assert set(sizes(suite, gone).values()) == {None}
        there = {variant.url: variant.size for media in (kept, lasting) for variant in media.variants}
        assert sizes(suite, there) == there
        await until(lambda: _discards(suite), 0)
        # An address shows its image to whoever has it.
        log = suite.log.read_text() if suite.log else ""
        for secret in (*folders([kept, unused, shown, avatar, lasting]), ana.token, ben.token):
            assert secret not in log
        await people.channel.close()


async def _left_of(boss: Person, user_id: int) -> int:
    """How many blobs are left of somebody who was deleted."""
    erasure = await boss.admin.GetErasure(admin_pb2.GetErasureRequest(user_id=user_id))
    (posts,) = (service for service in erasure.services if service.service == "posts")
    return posts.left["blobs"]


async def _discards(suite: RunningSuite) -> int:
    """How many folders are to be deleted."""
    ((count,),) = databases.rows(suite, "posts", "SELECT COUNT(*) FROM discard WHERE open_until = 0")
    return int(count)

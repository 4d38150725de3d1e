"""Comments through the public API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc

from insta.gateway.v1 import admin_pb2, posts_pb2
from tests.end_to_end.lists import everything
from tests.people import People, Person, failure

NOBODYS = 2**40
COMMENT_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "COMMENT_NOT_FOUND")
NOT_OWNER = (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")


def update(person: Person, comment_id: int, text: str) -> Awaitable[posts_pb2.UpdateCommentResponse]:
    return person.posts.UpdateComment(posts_pb2.UpdateCommentRequest(comment_id=comment_id, text=text))


def delete(person: Person, comment_id: int) -> Awaitable[posts_pb2.DeleteCommentResponse]:
    return person.posts.DeleteComment(posts_pb2.DeleteCommentRequest(comment_id=comment_id))


async def comments_on(person: Person, post: posts_pb2.Post) -> list[posts_pb2.Comment]:
    return await everything(person.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post.id))


async def test_comments_are_listed_newest_first_with_their_authors(ana: Person, ben: Person) -> None:
    post = await ana.post()
    first = await ben.comment(post, "Première ligne\nand a second 🌅")
    second = await ana.comment(post, "Thanks")

    assert await comments_on(ana, post) == [second, first]
    assert (first.post_id, first.text) == (post.id, "Première ligne\nand a second 🌅")
    assert (first.author.id, first.author.username, first.author.gone) == (ben.id, ben.username, False)
    assert first.create_time == first.update_time
    assert (await ben.see(post)).comment_count == 2


async def test_the_longest_comment_is_kept_whole(ana: Person) -> None:
    post = await ana.post()

    await ana.comment(post, "😀" * 1000)

    assert [comment.text for comment in await comments_on(ana, post)] == ["😀" * 1000]


async def test_comments_written_at_once_are_all_kept_and_counted(ana: Person, ben: Person) -> None:
    post = await ana.post()

    written = await asyncio.gather(*(person.comment(post) for person in (ana, ben) for _ in range(8)))

    listed = await comments_on(ana, post)
    assert [comment.id for comment in listed] == sorted((comment.id for comment in written), reverse=True)
    assert (await ana.see(post)).comment_count == 16


async def test_nobody_comments_on_a_post_that_does_not_exist(ana: Person) -> None:
    nothing = posts_pb2.Post(id=NOBODYS)

    for call in (ana.comment(nothing), comments_on(ana, nothing)):
        failed = await failure(call)
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")


async def test_its_author_changes_a_comment(ana: Person, ben: Person) -> None:
    post = await ana.post()
    comment = await ben.comment(post)
    other = await ben.comment(post)

    changed = (await update(ben, comment.id, "Better")).comment

    assert (changed.id, changed.text, changed.author.id) == (comment.id, "Better", ben.id)
    assert changed.create_time == comment.create_time
    assert changed.update_time.ToNanoseconds() > comment.update_time.ToNanoseconds()
    assert await comments_on(ana, post) == [other, changed]
    assert (await update(ben, comment.id, "Better")).comment == changed


async def test_nobody_else_changes_a_comment(ana: Person, ben: Person, boss: Person) -> None:
    post = await ana.post()
    comment = await ben.comment(post)

    for other in (ana, boss):
        failed = await failure(update(other, comment.id, "Mine"))
        assert (failed.code, failed.reason) == NOT_OWNER
    assert await comments_on(ana, post) == [comment]


async def test_its_author_the_posts_author_and_staff_delete_a_comment(
    people: People, ana: Person, ben: Person, boss: Person
) -> None:
    staff = await people.join()
    await boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=staff.id, staff=True))
    staff = await people.log_in(staff.username)
    post = await ana.post()
    kept = await ben.comment(post)

    for person in (ben, ana, staff, boss):
        comment = await ben.comment(post)
        await delete(person, comment.id)
        assert await comments_on(ana, post) == [kept]
        assert (await ana.see(post)).comment_count == 1


async def test_nobody_else_deletes_a_comment(people: People, ana: Person, ben: Person) -> None:
    post = await ana.post()
    comment = await ben.comment(post)
    stranger = await people.join()
    # To be the author of another post, or of another comment on this one, gives no say.
    await stranger.post()
    own = await stranger.comment(post)

    failed = await failure(delete(stranger, comment.id))

    assert (failed.code, failed.reason) == NOT_OWNER
    assert await comments_on(ana, post) == [own, comment]


async def test_a_comment_that_does_not_exist_is_not_found(ana: Person) -> None:
    comment = await ana.comment(await ana.post())
    await delete(ana, comment.id)

    for comment_id in (NOBODYS, comment.id):
        for call in (update(ana, comment_id, "Text"), delete(ana, comment_id)):
            failed = await failure(call)
            assert (failed.code, failed.reason) == COMMENT_NOT_FOUND


async def test_of_eight_deletions_at_once_one_succeeds_and_counts(ana: Person, ben: Person) -> None:
    post = await ana.post()
    comment = await ben.comment(post)
    await ben.comment(post)

    answers = await asyncio.gather(
        *(delete(person, comment.id) for person in (ana, ben) for _ in range(4)), return_exceptions=True
    )

    lost = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert lost == [grpc.StatusCode.NOT_FOUND] * 7
    assert (await ana.see(post)).comment_count == 1


async def test_deleting_a_comment_on_a_deleted_post_speaks_of_the_comment(ana: Person, ben: Person) -> None:
    post = await ana.post()
    comment = await ben.comment(post)
    await ana.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id))

    failed = await failure(delete(ana, comment.id))

    assert (failed.code, failed.reason) in (COMMENT_NOT_FOUND, NOT_OWNER)

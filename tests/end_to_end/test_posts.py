"""Posts through the public API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from insta.gateway.v1 import admin_pb2, posts_pb2, profiles_pb2
from tests.end_to_end.lists import everything
from tests.people import People, Person, failure

NOBODYS = 2**40
POST_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")
NOT_OWNER = (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")
# In an order that neither sorting nor hashing would give.
URLS = [f"https://pictures.example.com/{name}.jpg?size=1&v=%20#top" for name in ("c", "a", "b", "a")]


def update(person: Person, post_id: int, *paths: str, **fields: Any) -> Awaitable[posts_pb2.UpdatePostResponse]:
    request = posts_pb2.UpdatePostRequest(post=posts_pb2.Post(id=post_id, **fields))
    request.update_mask.paths.extend(paths)
    return person.posts.UpdatePost(request)


def delete(person: Person, post: posts_pb2.Post) -> Awaitable[posts_pb2.DeletePostResponse]:
    return person.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id))


async def batch(person: Person, *post_ids: int) -> list[posts_pb2.Post]:
    return list((await person.posts.BatchGetPosts(posts_pb2.BatchGetPostsRequest(post_ids=post_ids))).posts)


@pytest_asyncio.fixture
async def staff(people: People, boss: Person) -> Person:
    person = await people.join()
    await boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=person.id, staff=True))
    return await people.log_in(person.username)


async def test_a_post_is_read_as_it_was_written(ana: Person, ben: Person) -> None:
    written = await ana.post("Première lumière 🌅", description="Line one\n\tline two", image_urls=URLS)

    seen = await ben.see(written)

    assert (seen.title, seen.description) == ("Première lumière 🌅", "Line one\n\tline two")
    assert list(seen.image_urls) == URLS
    assert (seen.author.id, seen.author.username, seen.author.first_name) == (ana.id, ana.username, "Pat")
    assert not seen.author.gone
    assert (seen.like_count, seen.comment_count, seen.viewer_liked) == (0, 0, False)
    assert seen.create_time == seen.update_time
    assert seen == written


async def test_the_longest_post_is_kept_whole(ana: Person) -> None:
    url = "https://example.com/"
    written = await ana.post(
        "😀" * 255, description="語" * 2000, image_urls=[url + str(number) * (2048 - len(url)) for number in range(10)]
    )

    seen = await ana.see(written)

    assert (seen.title, seen.description) == ("😀" * 255, "語" * 2000)
    assert [address[-1] for address in seen.image_urls] == list("0123456789")


async def test_ids_grow_and_are_never_used_again(ana: Person) -> None:
    first = await ana.post()
    await delete(ana, first)
    second = await ana.post()

    assert second.id > first.id


async def test_a_post_that_does_not_exist_is_not_found(ana: Person) -> None:
    nothing = posts_pb2.Post(id=NOBODYS)
    for call in (ana.see(nothing), update(ana, NOBODYS, title="Mine"), delete(ana, nothing)):
        failed = await failure(call)
        assert (failed.code, failed.reason) == POST_NOT_FOUND


async def test_many_posts_come_in_the_order_of_their_ids_each_once(ana: Person, ben: Person) -> None:
    first, second, third = await ana.post("1"), await ben.post("2"), await ana.post("3")
    await ben.like(first)
    await ana.comment(second)

    found = await batch(ben, third.id, NOBODYS, first.id, second.id, third.id, 2**63 - 1)

    assert found == [await ben.see(third), await ben.see(first), await ben.see(second)]
    assert await batch(ben, NOBODYS) == []


async def test_an_update_changes_what_its_mask_names(ana: Person, ben: Person) -> None:
    post = await ana.post("Old", description="Old", image_urls=URLS)
    await ben.like(post)
    await ben.comment(post)

    after = (await update(ana, post.id, "title", "image_urls", title="New", description="No", image_urls=URLS[:1])).post

    assert (after.title, after.description, list(after.image_urls)) == ("New", "Old", URLS[:1])
    assert (after.like_count, after.comment_count, after.author.id) == (1, 1, ana.id)
    assert after.create_time == post.create_time
    assert after.update_time.ToNanoseconds() > post.update_time.ToNanoseconds()
    assert await ana.see(post) == after


async def test_an_update_without_a_mask_changes_what_is_not_empty(ana: Person) -> None:
    post = await ana.post("Old", description="Old", image_urls=URLS)

    after = (await update(ana, post.id, description="New")).post

    assert (after.title, after.description, list(after.image_urls)) == ("Old", "New", URLS)


async def test_an_empty_value_in_the_mask_empties_what_may_be_empty(ana: Person) -> None:
    post = await ana.post("Title", description="Old", image_urls=URLS)

    after = (await update(ana, post.id, "description", "image_urls")).post

    assert (after.title, after.description, list(after.image_urls)) == ("Title", "", [])


async def test_an_update_changes_the_order_of_pictures(ana: Person) -> None:
    post = await ana.post(image_urls=URLS)

    after = (await update(ana, post.id, image_urls=URLS[::-1])).post

    assert list(after.image_urls) == list((await ana.see(post)).image_urls) == URLS[::-1]


async def test_repeating_an_update_changes_nothing_more(ana: Person) -> None:
    post = await ana.post()
    first = (await update(ana, post.id, title="New")).post

    assert (await update(ana, post.id, title="New")).post == first


@pytest.mark.parametrize("path", ["author", "like_count", "id", "create_time", "post.title", "*"])
async def test_a_mask_that_names_something_else_is_refused(ana: Person, path: str) -> None:
    post = await ana.post()

    failed = await failure(update(ana, post.id, "title", path, title="New"))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["update_mask"]
    assert await ana.see(post) == post


async def test_only_its_author_changes_a_post_also_not_staff(ana: Person, ben: Person, staff: Person) -> None:
    post = await ana.post()

    for other in (ben, staff):
        failed = await failure(update(other, post.id, title="Mine"))
        assert (failed.code, failed.reason) == NOT_OWNER
    assert await ana.see(post) == post


async def test_somebody_else_cannot_delete_a_post(ana: Person, ben: Person) -> None:
    post = await ana.post()

    failed = await failure(delete(ben, post))

    assert (failed.code, failed.reason) == NOT_OWNER
    assert await ana.see(post) == post


async def test_staff_delete_any_post(ana: Person, staff: Person) -> None:
    post = await ana.post()

    await delete(staff, post)

    assert (await failure(ana.see(post))).reason == "POST_NOT_FOUND"
    assert (await ana.profile(ana)).post_count == 0


async def test_a_deleted_post_is_gone_from_everywhere(ana: Person, ben: Person) -> None:
    post, kept = await ana.post(), await ana.post()
    await ben.like(post)
    await ben.comment(post)

    await delete(ana, post)

    calls = [
        ben.see(post),
        delete(ana, post),
        update(ana, post.id, title="New"),
        ana.like(post),
        ana.comment(post),
        everything(ana.posts.ListComments, posts_pb2.ListCommentsRequest(post_id=post.id)),
        everything(ana.posts.ListPostLikes, posts_pb2.ListPostLikesRequest(post_id=post.id)),
    ]
    for call in calls:
        failed = await failure(call)
        assert (failed.code, failed.reason) == POST_NOT_FOUND
    listed = await everything(ben.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=ana.id))
    assert await batch(ben, post.id, kept.id) == listed == [await ben.see(kept)]
    assert (await ben.profile(ana)).post_count == 1


async def test_of_eight_deletions_at_once_one_succeeds(ana: Person) -> None:
    post = await ana.post()
    await ana.post()

    answers = await asyncio.gather(*(delete(ana, post) for _ in range(8)), return_exceptions=True)

    lost = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert lost == [grpc.StatusCode.NOT_FOUND] * 7
    assert (await ana.profile(ana)).post_count == 1


async def test_posts_created_at_once_are_all_kept_and_counted(ana: Person) -> None:
    created = await asyncio.gather(*(ana.post(f"Post {number}") for number in range(16)))

    listed = await everything(ana.profiles.ListProfilePosts, profiles_pb2.ListProfilePostsRequest(user_id=ana.id))
    assert [post.id for post in listed] == sorted((post.id for post in created), reverse=True)
    assert {post.title for post in listed} == {f"Post {number}" for number in range(16)}
    assert (await ana.profile(ana)).post_count == 16

"""Lists of the public API: one kind of object for all of them, and how to read one to its end."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf import message

from insta.gateway.v1 import admin_pb2, feed_pb2, posts_pb2, profiles_pb2
from tests.people import People, Person

_prefixes = itertools.count()


class Page(NamedTuple):
    """A page: the ids of its rows, and the token of the next."""

    ids: list[int]
    token: str


@dataclass(frozen=True)
class Listing:
    """A list that is empty at first, and ways to change what it shows.

    Attributes:
        reader: Who reads it.
        other_reader: Somebody else who may read it.
        call: The RPC of a person that answers it.
        request: Asks for it.
        other_request: Asks for a list of the same kind with other arguments. None: it takes none.
        add: Adds a row, which becomes the first. Returns its id.
        remove: Removes the row with an id.
    """

    reader: Person
    other_reader: Person
    call: Callable[[Person], Any]
    request: message.Message
    other_request: message.Message | None
    add: Callable[[], Awaitable[int]]
    remove: Callable[[int], Awaitable[Any]]

    async def fill(self, count: int) -> list[int]:
        """Add rows. Their ids in the order in which the list shows them."""
        return [await self.add() for _ in range(count)][::-1]

    async def page(
        self, size: int, token: str = "", *, reader: Person | None = None, request: message.Message | None = None
    ) -> Page:
        """Read one page."""
        response = await self.call(reader or self.reader)(_asking(request or self.request, size, token))
        return Page([row.id for row in _rows(response)], response.next_page_token)

    async def pages(self, size: int) -> list[list[int]]:
        """Read all pages: the ids on each."""
        page = await self.page(size)
        found = [page.ids]
        while page.token:
            page = await self.page(size, page.token)
            found.append(page.ids)
        return found


async def everything(call: Any, request: message.Message) -> list[Any]:
    """All rows of a list."""
    response = await call(_asking(request, 100, ""))
    found = list(_rows(response))
    while response.next_page_token:
        response = await call(_asking(request, 100, response.next_page_token))
        found += _rows(response)
    return found


async def profile_posts(people: People) -> Listing:
    ana, ben = await people.join(), await people.join()

    async def add() -> int:
        return (await ana.post()).id

    return Listing(
        reader=ben,
        other_reader=ana,
        call=lambda person: person.profiles.ListProfilePosts,
        request=profiles_pb2.ListProfilePostsRequest(user_id=ana.id),
        other_request=profiles_pb2.ListProfilePostsRequest(user_id=ben.id),
        add=add,
        remove=lambda post_id: ana.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post_id)),
    )


async def home_feed(people: People) -> Listing:
    ana, ben = await people.join(), await people.join()
    authors = [await people.join() for _ in range(3)]
    for author in authors:
        await ana.follow(author)
        await ben.follow(author)
    written: dict[int, Person] = {}

    async def add() -> int:
        author = authors[len(written) % 2]
        post = await author.post()
        written[post.id] = author
        return post.id

    return Listing(
        reader=ana,
        other_reader=ben,
        call=lambda person: person.feed.ListHomeFeed,
        request=feed_pb2.ListHomeFeedRequest(),
        other_request=None,
        add=add,
        remove=lambda post_id: written[post_id].posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post_id)),
    )


async def followers(people: People) -> Listing:
    ana, ben = await people.join(), await people.join()
    joined: dict[int, Person] = {}

    async def add() -> int:
        person = await people.join()
        joined[person.id] = person
        await person.follow(ana)
        return person.id

    return Listing(
        reader=ana,
        other_reader=ben,
        call=lambda person: person.profiles.ListFollowers,
        request=profiles_pb2.ListFollowersRequest(user_id=ana.id),
        other_request=profiles_pb2.ListFollowersRequest(user_id=ben.id),
        add=add,
        remove=lambda user_id: joined[user_id].profiles.UnfollowUser(profiles_pb2.UnfollowUserRequest(user_id=ana.id)),
    )


async def following(people: People) -> Listing:
    ana, ben = await people.join(), await people.join()

    async def add() -> int:
        person = await people.join()
        await ana.follow(person)
        return person.id

    return Listing(
        reader=ben,
        other_reader=ana,
        call=lambda person: person.profiles.ListFollowing,
        request=profiles_pb2.ListFollowingRequest(user_id=ana.id),
        other_request=profiles_pb2.ListFollowingRequest(user_id=ben.id),
        add=add,
        remove=lambda user_id: ana.profiles.UnfollowUser(profiles_pb2.UnfollowUserRequest(user_id=user_id)),
    )


async def post_likes(people: People) -> Listing:
    ana, ben = await people.join(), await people.join()
    post, other_post = await ana.post(), await ana.post()
    joined: dict[int, Person] = {}

    async def add() -> int:
        person = await people.join()
        joined[person.id] = person
        await person.like(post)
        return person.id

    return Listing(
        reader=ana,
        other_reader=ben,
        call=lambda person: person.posts.ListPostLikes,
        request=posts_pb2.ListPostLikesRequest(post_id=post.id),
        other_request=posts_pb2.ListPostLikesRequest(post_id=other_post.id),
        add=add,
        remove=lambda user_id: joined[user_id].posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id)),
    )


async def comments(people: People) -> Listing:
    ana, ben = await people.join(), await people.join()
    post, other_post = await ana.post(), await ana.post()

    async def add() -> int:
        return (await ben.comment(post)).id

    return Listing(
        reader=ana,
        other_reader=ben,
        call=lambda person: person.posts.ListComments,
        request=posts_pb2.ListCommentsRequest(post_id=post.id),
        other_request=posts_pb2.ListCommentsRequest(post_id=other_post.id),
        add=add,
        remove=lambda comment_id: ben.posts.DeleteComment(posts_pb2.DeleteCommentRequest(comment_id=comment_id)),
    )


async def users(people: People) -> Listing:
    boss = await people.superuser()
    staff = await people.join()
    await boss.admin.SetUserRoles(admin_pb2.SetUserRolesRequest(user_id=staff.id, staff=True))
    prefix = f"paged{staff.id}_{next(_prefixes)}_"

    async def add() -> int:
        return (await people.join(username=f"{prefix}{next(_prefixes)}")).id

    return Listing(
        reader=boss,
        other_reader=await people.log_in(staff.username),
        call=lambda person: person.admin.ListUsers,
        request=admin_pb2.ListUsersRequest(text=prefix),
        other_request=admin_pb2.ListUsersRequest(text=prefix, active=True),
        add=add,
        remove=lambda user_id: boss.admin.DeleteUser(admin_pb2.DeleteUserRequest(user_id=user_id)),
    )


ALL: dict[str, Callable[[People], Awaitable[Listing]]] = {
    "ListProfilePosts": profile_posts,
    "ListHomeFeed": home_feed,
    "ListFollowers": followers,
    "ListFollowing": following,
    "ListPostLikes": post_likes,
    "ListComments": comments,
    "ListUsers": users,
}


def _asking(request: message.Message, size: int, token: str) -> message.Message:
    asking = type(request)()
    asking.CopyFrom(request)
    asking.page_size = size  # type: ignore[attr-defined]
    asking.page_token = token  # type: ignore[attr-defined]
    return asking


def _rows(response: message.Message) -> Any:
    """The rows of a page: its only repeated field."""
    (name,) = (field.name for field in response.DESCRIPTOR.fields if field.is_repeated)
    return getattr(response, name)

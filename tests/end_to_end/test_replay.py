"""Retries under a request_id: one effect, and the first answer again."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from insta.gateway.v1 import accounts_pb2, admin_pb2, posts_pb2, profiles_pb2
from tests import databases
from tests.people import Failure, People, Person, failure, refused_soon, until
from tests.running import PASSWORD, RunningSuite, running

REUSED = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
_ids = itertools.count()


def new_id() -> str:
    return f"request-{os.getpid()}-{next(_ids)}"


@dataclass
class Deed:
    """Something that people do, with a request_id.

    Attributes:
        request: What it takes.
        other: Another request of its kind under the same id.
        call: The method, as somebody sees it.
        count: How often it took effect.
    """

    request: Any
    other: Any
    call: Callable[[Person], Callable[[Any], Awaitable[Any]]]
    count: Callable[[], Awaitable[int]]


async def creating_a_post(people: People, who: Person) -> Deed:
    request = posts_pb2.CreatePostRequest(title="First light", request_id=new_id())

    async def count() -> int:
        return (await who.profile(who)).post_count

    other = posts_pb2.CreatePostRequest(title="Second light", request_id=request.request_id)
    return Deed(request, other, lambda one: one.posts.CreatePost, count)


async def liking_a_post(people: People, who: Person) -> Deed:
    author = await people.join()
    post, another = await author.post(), await author.post()

    async def count() -> int:
        return (await author.see(post)).like_count

    request = posts_pb2.LikePostRequest(post_id=post.id, request_id=new_id())
    other = posts_pb2.LikePostRequest(post_id=another.id, request_id=request.request_id)
    return Deed(request, other, lambda one: one.posts.LikePost, count)


async def writing_a_comment(people: People, who: Person) -> Deed:
    author = await people.join()
    post = await author.post()

    async def count() -> int:
        return (await author.see(post)).comment_count

    request = posts_pb2.CreateCommentRequest(post_id=post.id, text="Lovely", request_id=new_id())
    other = posts_pb2.CreateCommentRequest(post_id=post.id, text="Lovelier", request_id=request.request_id)
    return Deed(request, other, lambda one: one.posts.CreateComment, count)


async def following_somebody(people: People, who: Person) -> Deed:
    followee, another = await people.join(), await people.join()

    async def count() -> int:
        return (await followee.profile(followee)).follower_count

    request = profiles_pb2.FollowUserRequest(user_id=followee.id, request_id=new_id())
    other = profiles_pb2.FollowUserRequest(user_id=another.id, request_id=request.request_id)
    return Deed(request, other, lambda one: one.profiles.FollowUser, count)


async def registering(people: People, who: Person) -> Deed:
    request = registration()

    async def count() -> int:
        boss = await people.superuser()
        listed = await boss.admin.ListUsers(admin_pb2.ListUsersRequest(text=request.username))
        return len(listed.accounts)

    other = accounts_pb2.RegisterRequest()
    other.CopyFrom(request)
    other.bio = "Another request"
    return Deed(request, other, lambda one: one.accounts.Register, count)


DEEDS = [creating_a_post, liking_a_post, writing_a_comment, following_somebody, registering]
of_each_kind = pytest.mark.parametrize("prepare", DEEDS, ids=lambda prepare: prepare.__name__)
Prepare = Callable[[People, Person], Awaitable[Deed]]


def registration(**fields: str) -> accounts_pb2.RegisterRequest:
    name = f"r{os.getpid()}_{next(_ids)}"
    wanted = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "first_name": "Pat", **fields}
    return accounts_pb2.RegisterRequest(request_id=new_id(), **wanted)


def told(failed: Failure) -> tuple[grpc.StatusCode, str]:
    return failed.code, failed.reason


async def patiently(call: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """The answer of a call that is sent again under its id while the suite is busy, checking passwords for instance."""
    while True:
        try:
            return await call(request)
        except grpc.aio.AioRpcError as error:
            refused = Failure(error)
            if refused.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or refused.retry_after is None:
                raise
            await asyncio.sleep(refused.retry_after)


class Line:
    """A way to a server on which its answers can be lost."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._losing = False
        self._writers: list[asyncio.StreamWriter] = []
        self.address = ""

    def lose_answers(self) -> None:
        """From now on nothing that the server says arrives."""
        self._losing = True

    def cut(self) -> None:
        """Both ends find the connection closed."""
        for writer in self._writers:
            writer.close()

    async def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        there_reader, there = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, there]
        await asyncio.gather(self._pass_on(reader, there, lost=False), self._pass_on(there_reader, writer, lost=True))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lost: bool) -> None:
        try:
            while data := await reader.read(65536):
                if not (lost and self._losing):
                    writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def line_to(address: str) -> AsyncIterator[Line]:
    line = Line(address)
    server = await asyncio.start_server(line.open, "127.0.0.1", 0)
    line.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        line.cut()
        server.close()


@pytest.fixture(params=["apart", *(pytest.param(mode, marks=pytest.mark.soak) for mode in ("together", "workers"))])
def own_mode(request: pytest.FixtureRequest) -> str:
    """For tests that start suites of their own."""
    mode: str = request.param
    return mode


@of_each_kind
async def test_fifty_at_once_have_one_effect_and_fifty_equal_answers(
    people: People, ana: Person, prepare: Prepare
) -> None:
    deed = await prepare(people, ana)
    before = await deed.count()

    answers = await asyncio.gather(*(patiently(deed.call(ana), deed.request) for _ in range(50)))

    assert await deed.count() == before + 1
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1


@of_each_kind
async def test_a_retry_after_the_answer_was_lost_gets_it(
    suite: RunningSuite, people: People, ana: Person, prepare: Prepare
) -> None:
    deed = await prepare(people, ana)
    before = await deed.count()
    async with line_to(suite.address) as line:
        channel = grpc.aio.insecure_channel(line.address, options=[("grpc.use_local_subchannel_pool", 1)])
        far = Person(channel, ana.id, ana.username, ana.token)
        await failure(far.posts.GetPost(posts_pb2.GetPostRequest(post_id=2**40)))
        line.lose_answers()
        lost = asyncio.ensure_future(failure(deed.call(far)(deed.request)))
        await until(deed.count, before + 1)
        line.cut()
        assert (await lost).code is grpc.StatusCode.UNAVAILABLE
        await channel.close()

    retried = await deed.call(ana)(deed.request)
    again = await deed.call(ana)(deed.request)

    assert await deed.count() == before + 1
    assert retried == again


@of_each_kind
async def test_another_request_under_the_same_id_is_refused_and_has_no_effect(
    people: People, ana: Person, prepare: Prepare
) -> None:
    deed = await prepare(people, ana)
    first = await deed.call(ana)(deed.request)
    count = await deed.count()

    failed = await failure(deed.call(ana)(deed.other))

    assert told(failed) == REUSED
    assert failed.fields == ["request_id"]
    assert await deed.count() == count
    assert await deed.call(ana)(deed.request) == first


async def test_after_a_restart_a_retry_gets_the_first_answer(own_mode: str, tmp_path: Path) -> None:
    with running(own_mode, tmp_path) as suite:
        people = People(suite.address)
        ana = await people.join()
        deeds = [await prepare(people, ana) for prepare in DEEDS]
        first = [await deed.call(ana)(deed.request) for deed in deeds]
        await people.channel.close()
    with running(own_mode, tmp_path) as suite:
        people = People(suite.address)
        same = Person(people.channel, ana.id, ana.username, ana.token)
        retried = [await deed.call(same)(deed.request) for deed in deeds]
        refused = [await failure(deed.call(same)(deed.other)) for deed in deeds]
        # A post was written once, though another process than the first was asked.
        assert (await same.profile(same)).post_count == 1
        await people.channel.close()

    assert retried == first
    assert [told(failed) for failed in refused] == [REUSED] * len(deeds)


async def test_the_same_id_of_another_caller_is_another_request(ana: Person, ben: Person) -> None:
    secret = posts_pb2.CreatePostRequest(title="Ana's own", request_id=new_id())
    first = await ana.posts.CreatePost(secret)

    same = await ben.posts.CreatePost(secret)
    other = await ben.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=same.post.id, request_id=secret.request_id))

    assert (same.post.author.id, first.post.author.id) == (ben.id, ana.id)
    assert same.post.id != first.post.id
    assert other == posts_pb2.DeletePostResponse()
    assert (await ana.posts.CreatePost(secret)) == first


async def test_who_registers_with_an_id_of_another_registration_learns_nothing_of_it(people: People) -> None:
    theirs = registration()
    await people.stranger.accounts.Register(theirs)
    mine = registration()
    mine.request_id = theirs.request_id

    failed = await failure(people.stranger.accounts.Register(mine))

    assert told(failed) == REUSED
    assert theirs.username not in failed.text
    mine.request_id = new_id()
    assert (await people.stranger.accounts.Register(mine)).account.username == mine.username


async def test_a_registration_that_comes_again_needs_its_password(people: People) -> None:
    request = registration()
    first = await people.stranger.accounts.Register(request)
    guess = accounts_pb2.RegisterRequest()
    guess.CopyFrom(request)
    guess.password = "not the password of anybody"

    failed = await failure(people.stranger.accounts.Register(guess))

    assert told(failed) == REUSED
    assert first.account.email not in failed.text
    assert await people.stranger.accounts.Register(request) == first


async def test_a_registration_is_not_replayed_with_a_password_that_was_changed(people: People) -> None:
    request = registration()
    await people.stranger.accounts.Register(request)
    person = await people.log_in(request.username)
    change = accounts_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse, another staple")
    await person.accounts.ChangePassword(change)

    assert told(await failure(people.stranger.accounts.Register(request))) == REUSED


async def test_a_retried_deletion_answers_the_same(ana: Person, ben: Person) -> None:
    post = await ana.post()
    comment = await ben.comment(await ana.post())
    of_post = posts_pb2.DeletePostRequest(post_id=post.id, request_id=new_id())
    of_comment = posts_pb2.DeleteCommentRequest(comment_id=comment.id, request_id=new_id())

    for _ in range(3):
        assert await ana.posts.DeletePost(of_post) == posts_pb2.DeletePostResponse()
        assert await ben.posts.DeleteComment(of_comment) == posts_pb2.DeleteCommentResponse()

    assert (
        await failure(ana.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id)))
    ).reason == "POST_NOT_FOUND"


async def test_what_was_done_to_a_post_that_is_gone_meanwhile_still_has_its_answer(ana: Person, ben: Person) -> None:
    post = await ana.post()
    like = posts_pb2.LikePostRequest(post_id=post.id, request_id=new_id())
    comment = posts_pb2.CreateCommentRequest(post_id=post.id, text="Lovely", request_id=new_id())
    liked = await ben.posts.LikePost(like)
    commented = await ben.posts.CreateComment(comment)
    await ana.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id))

    assert await ben.posts.LikePost(like) == liked
    assert await ben.posts.CreateComment(comment) == commented
    like.request_id = new_id()
    assert (await failure(ben.posts.LikePost(like))).reason == "POST_NOT_FOUND"


async def test_a_retry_gets_the_first_answer_although_much_has_happened_since(
    people: People, ana: Person, ben: Person
) -> None:
    post = await ana.post()
    like = posts_pb2.LikePostRequest(post_id=post.id, request_id=new_id())
    first = await ben.posts.LikePost(like)
    await ana.like(post)
    await ben.posts.UnlikePost(posts_pb2.UnlikePostRequest(post_id=post.id))

    assert await ben.posts.LikePost(like) == first
    seen = await ben.see(post)
    assert (seen.like_count, seen.viewer_liked) == (1, False)


async def test_a_retry_is_refused_to_who_may_call_no_longer(people: People, ana: Person) -> None:
    request = posts_pb2.CreatePostRequest(title="First light", request_id=new_id())
    await ana.posts.CreatePost(request)
    await ana.accounts.Logout(accounts_pb2.LogoutRequest())

    failed = await refused_soon(lambda: ana.posts.CreatePost(request))

    assert told(failed) == (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")


@pytest.mark.inside
async def test_a_refused_request_keeps_nothing_and_can_be_sent_again_under_its_id(
    suite: RunningSuite, people: People
) -> None:
    holder = await people.join()
    request = registration(username=holder.username)

    refused = await failure(people.stranger.accounts.Register(request))
    kept = databases.rows(suite, "users", "SELECT COUNT(*) FROM reply WHERE request_id = ?", [request.request_id])
    await holder.accounts.UpdateAccount(
        accounts_pb2.UpdateAccountRequest(account=accounts_pb2.Account(username=registration().username))
    )
    registered = await people.stranger.accounts.Register(request)

    assert refused.reason == "USERNAME_TAKEN"
    assert kept == [(0,)]
    assert registered.account.username == request.username
    assert await people.stranger.accounts.Register(request) == registered


@pytest.mark.inside
async def test_what_is_kept_holds_no_password(suite: RunningSuite, people: People) -> None:
    old, new = "a first and secret phrase", "a second and secret phrase"
    request = registration(password=old)
    await people.stranger.accounts.Register(request)
    person = await people.log_in(request.username, old)
    change = accounts_pb2.ChangePasswordRequest(current_password=old, new_password=new, request_id=new_id())
    await person.accounts.ChangePassword(change)
    person = await people.log_in(request.username, new)
    kept = databases.rows(suite, "users", "SELECT request_id FROM reply")
    await person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=new, request_id=new_id()))

    assert {(request.request_id,), (change.request_id,)} <= set(kept)
    for service in ("users", "posts", "social"):
        stored = b"".join(databases.everything(databases.path_of(suite, service)))
        assert old.encode() not in stored, service
        assert new.encode() not in stored, service
        assert stored

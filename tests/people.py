"""People who use the public API: each a name, a token, and stubs that send it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import jwt
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from insta.gateway.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    admin_pb2_grpc,
    feed_pb2,
    feed_pb2_grpc,
    media_pb2,
    media_pb2_grpc,
    posts_pb2,
    posts_pb2_grpc,
    profiles_pb2,
    profiles_pb2_grpc,
)
from tests.posts.media.drawing import encoded
from tests.running import PASSWORD, SUPERUSER

# What an upload's messages hold at most.
CHUNK_BYTES = 64 * 1024

_names = itertools.count()


class WithToken:
    """A channel whose calls carry an access token. An empty one is not sent."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_token(self._channel.unary_unary(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_token(self._channel.stream_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_token(self._channel.unary_stream(*args, **kwargs))

    def _with_token(self, call: Any) -> Any:
        def with_token(request: Any, timeout: float = 30, **options: Any) -> Any:
            return call(request, metadata=self._metadata, timeout=timeout, **options)

        return with_token


class Person:
    """Somebody who may be logged in.

    Attributes:
        id: Of their account; 0 for a stranger without one.
        token, refresh_token: Of their session.
        accounts, profiles, posts, media, feed, admin: The public API as they see it.
    """

    def __init__(
        self, channel: grpc.aio.Channel, user_id: int = 0, username: str = "", token: str = "", refresh_token: str = ""
    ) -> None:
        self.id = user_id
        self.username = username
        self.token = token
        self.refresh_token = refresh_token
        self.channel = WithToken(channel, token)
        self.accounts = accounts_pb2_grpc.AccountServiceStub(self.channel)
        self.profiles = profiles_pb2_grpc.ProfileServiceStub(self.channel)
        self.posts = posts_pb2_grpc.PostServiceStub(self.channel)
        self.media = media_pb2_grpc.MediaServiceStub(self.channel)
        self.feed = feed_pb2_grpc.FeedServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)

    @property
    def session_id(self) -> str:
        """The session that the token belongs to."""
        session_id: str = jwt.decode(self.token, options={"verify_signature": False})["sid"]
        return session_id

    async def post(self, title: str = "First light", **fields: Any) -> posts_pb2.Post:
        """Write a post."""
        return (await self.posts.CreatePost(posts_pb2.CreatePostRequest(title=title, **fields))).post

    async def upload(
        self, data: bytes | None = None, content_type: str = "image/png", **header: Any
    ) -> media_pb2.Media:
        """Upload an image, some small one if none is given."""
        data = small_picture() if data is None else data
        header = {"content_type": content_type, "size": len(data), **header}
        return (await self.media.UploadMedia(upload(data, **header))).media

    async def comment(self, post: posts_pb2.Post, text: str = "Lovely") -> posts_pb2.Comment:
        """Comment on a post."""
        request = posts_pb2.CreateCommentRequest(post_id=post.id, text=text)
        return (await self.posts.CreateComment(request)).comment

    async def see(self, post: posts_pb2.Post) -> posts_pb2.Post:
        """A post as this person sees it now."""
        return (await self.posts.GetPost(posts_pb2.GetPostRequest(post_id=post.id))).post

    async def like(self, post: posts_pb2.Post) -> int:
        """Like a post. How many people like it now."""
        return (await self.posts.LikePost(posts_pb2.LikePostRequest(post_id=post.id))).like_count

    async def home(self, page_size: int = 100) -> list[posts_pb2.Post]:
        """The first page of their feed."""
        return list((await self.feed.ListHomeFeed(feed_pb2.ListHomeFeedRequest(page_size=page_size))).posts)

    async def follow(self, other: Person) -> int:
        """Follow somebody. How many people follow them now."""
        return (await self.profiles.FollowUser(profiles_pb2.FollowUserRequest(user_id=other.id))).follower_count

    async def profile(self, other: Person) -> profiles_pb2.Profile:
        """Somebody as this person sees them now."""
        return (await self.profiles.GetProfile(profiles_pb2.GetProfileRequest(user_id=other.id))).profile

    async def account(self) -> accounts_pb2.Account:
        """This person's own account as it is now."""
        return (await self.accounts.GetAccount(accounts_pb2.GetAccountRequest())).account


def small_picture() -> bytes:
    """A PNG file unlike any other, whose processing takes a millisecond."""
    return encoded(Image.new("RGB", (4, 3), tuple(os.urandom(3))), "PNG")


def upload(data: bytes, **header: Any) -> Iterator[media_pb2.UploadMediaRequest]:
    """The messages of an upload."""
    yield media_pb2.UploadMediaRequest(header=media_pb2.UploadHeader(**header))
    for start in range(0, len(data), CHUNK_BYTES):
        yield media_pb2.UploadMediaRequest(chunk=data[start : start + CHUNK_BYTES])


class People:
    """Makes people for a running suite."""

    def __init__(self, address: str) -> None:
        # Several suites run beside each other; their channels are not to share connections.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            # A suite that was away for a moment is found again soon.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self.channel = grpc.aio.insecure_channel(address, options=options)
        self.stranger = Person(self.channel)

    async def join(self, **fields: str) -> Person:
        """Somebody new, registered and logged in. A name that no other test uses is made up."""
        username = fields.pop("username", "") or f"p{os.getpid()}_{next(_names)}"
        wanted = {
            "username": username,
            "email": f"{username}@example.com",
            "password": PASSWORD,
            "first_name": "Pat",
            **fields,
        }
        await self.stranger.accounts.Register(accounts_pb2.RegisterRequest(**wanted))
        return await self.log_in(username, wanted["password"])

    async def log_in(self, username: str, password: str = PASSWORD) -> Person:
        """Somebody who has an account."""
        login = await self.stranger.accounts.Login(accounts_pb2.LoginRequest(login=username, password=password))
        return Person(self.channel, login.account.id, login.account.username, login.access_token, login.refresh_token)

    async def superuser(self) -> Person:
        """Who may do everything."""
        return await self.log_in(SUPERUSER)


class Failure:
    """How a call failed: its code, and what its details say."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details() or ""
        self.reason = ""
        self.domain = ""
        self.fields: list[str] = []
        self.retry_after: float | None = None
        self.trace_id = dict(error.trailing_metadata() or ()).get("trace-id", "")
        packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        for detail in status_pb2.Status.FromString(packed).details if packed else ():
            info = error_details_pb2.ErrorInfo()
            bad_request = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                self.reason, self.domain = info.reason, info.domain
            elif detail.Unpack(bad_request):
                self.fields = [violation.field for violation in bad_request.field_violations]
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()

    def __repr__(self) -> str:
        return f"Failure({self.code.name}, {self.reason}, {self.text!r})"


async def failure(call: Any) -> Failure:
    """How a call failed. It must."""
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        return Failure(error)
    raise AssertionError(f"the call succeeded: {response}")


async def refused_soon(call: Callable[[], Any], code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED) -> Failure:
    """How a call fails once it does with a code, within the second that news has, and some patience."""
    async with asyncio.timeout(5):
        while True:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                if error.code() is code:
                    return Failure(error)
            await asyncio.sleep(0.01)


async def until(ask: Callable[[], Awaitable[Any]], expected: Any = True, seconds: float = 20) -> None:
    """Ask until the answer is the expected one: for what nothing tells of."""
    answer: Any = None
    try:
        async with asyncio.timeout(seconds):
            while (answer := await ask()) != expected:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"after {seconds} seconds it is {answer!r}, not {expected!r}") from None

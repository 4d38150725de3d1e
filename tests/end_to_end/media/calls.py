"""What people do with images through the public API, and how it is refused."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import secrets
import urllib.parse
from collections.abc import Awaitable
from typing import Any, NamedTuple

import grpc

from insta.gateway.v1 import accounts_pb2, media_pb2, posts_pb2
from tests.people import Failure, Person

NOBODYS = 2**40
MEDIA_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "MEDIA_NOT_FOUND")
NOT_OWNER = (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")
MEDIA_IN_USE = (grpc.StatusCode.FAILED_PRECONDITION, "MEDIA_IN_USE")
MEDIA_LIMIT = (grpc.StatusCode.RESOURCE_EXHAUSTED, "MEDIA_LIMIT")
UPLOAD_INCOMPLETE = (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_INCOMPLETE")
REUSED = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")

_ids = itertools.count()


def new_id() -> str:
    return f"media-{os.getpid()}-{next(_ids)}"


def told(failed: Failure) -> tuple[grpc.StatusCode, str]:
    return failed.code, failed.reason


async def read(person: Person, media_id: int) -> media_pb2.Media:
    return (await person.media.GetMedia(media_pb2.GetMediaRequest(media_id=media_id))).media


def delete(person: Person, media_id: int, **fields: Any) -> Awaitable[media_pb2.DeleteMediaResponse]:
    return person.media.DeleteMedia(media_pb2.DeleteMediaRequest(media_id=media_id, **fields))


async def describe(person: Person, media_id: int, alt_text: str) -> media_pb2.Media:
    request = media_pb2.UpdateMediaRequest(media_id=media_id, alt_text=alt_text)
    return (await person.media.UpdateMedia(request)).media


async def show_as_avatar(person: Person, media_id: int, **fields: Any) -> media_pb2.Media:
    request = accounts_pb2.SetAvatarRequest(media_id=media_id, **fields)
    return (await person.accounts.SetAvatar(request)).avatar


def remove_avatar(person: Person) -> Awaitable[accounts_pb2.RemoveAvatarResponse]:
    return person.accounts.RemoveAvatar(accounts_pb2.RemoveAvatarRequest())


async def change_media(person: Person, post: posts_pb2.Post, media_ids: list[int], *paths: str) -> posts_pb2.Post:
    wanted = posts_pb2.Post(id=post.id, media=(media_pb2.Media(id=media_id) for media_id in media_ids))
    request = posts_pb2.UpdatePostRequest(post=wanted)
    request.update_mask.paths.extend(paths)
    return (await person.posts.UpdatePost(request)).post


def shown(post: posts_pb2.Post) -> list[int]:
    return [media.id for media in post.media]


async def refused_upload(person: Person) -> grpc.aio.AioRpcError:
    """Upload until that fails."""
    async with asyncio.timeout(10):
        while True:
            try:
                await person.upload()
            except grpc.aio.AioRpcError as error:
                return error


class Posted(NamedTuple):
    """What an object store answered to a form."""

    status: int
    body: bytes


async def start_upload(person: Person, data: bytes, content_type: str = "image/png", **fields: Any) -> Any:
    request = media_pb2.StartUploadRequest(content_type=content_type, **{"size": len(data), **fields})
    return await person.media.StartUpload(request)


async def finish_upload(person: Person, started: Any, **fields: Any) -> media_pb2.Media:
    request = media_pb2.FinishUploadRequest(upload_id=started.upload_id, **fields)
    return (await person.media.FinishUpload(request)).media


def post_form(started: Any, data: bytes, **changed: str) -> Posted:
    """Post the form of an upload, as a browser does."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {**started.fields, **changed}.items()
    ]
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode())
    body = b"".join([*parts, data, f"\r\n--{boundary}--\r\n".encode()])
    url = urllib.parse.urlsplit(started.url)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    try:
        connection.request("POST", url.path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
        answer = connection.getresponse()
        return Posted(answer.status, answer.read())
    finally:
        connection.close()

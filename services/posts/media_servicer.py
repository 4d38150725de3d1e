"""MediaService: images over gRPC."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from chassis import clock, errors
from chassis.call import caller
from chassis.errors import Reason
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.posts.v1 import media_pb2, media_pb2_grpc
from services.posts.media import direct_uploads, receiving, records
from services.posts.media.blob_store import BlobMissing, BlobStore, BlobTooBig
from services.posts.media.images import variant_name
from services.posts.media.receiving import Room
from services.posts.media.records import MediaRow
from services.posts.media.studio import Studio, new_folder, storing
from services.posts.messages import Messages

_FORM_SECONDS = 3600
# Of a direct upload, in its folder.
_FILE = "upload"


class MediaServicer(media_pb2_grpc.MediaServiceServicer):
    def __init__(self, store: Store, replies: Replies, blobs: BlobStore, studio: Studio, messages: Messages) -> None:
        self._store = store
        self._replies = replies
        self._blobs = blobs
        self._studio = studio
        self._messages = messages
        self._room = Room()

    async def UploadMedia(
        self, requests: AsyncIterator[media_pb2.UploadMediaRequest], context: object
    ) -> media_pb2.UploadMediaResponse:
        owner_id = caller().user_id
        with self._room.entered(owner_id):
            header = await _header(requests)
            if not header.request_id:
                # One that comes again needs no room: it is known as such when all of it is there.
                await self._store.read(records.require_room, owner_id)
            with self._room.taken(header.size):
                data = await receiving.receive(_chunks(requests), header.size)
                # Of an upload that comes again the file has to be the same, too.
                header.sha256 = _checked_digest(header, data)
                return await self._made(owner_id, header, data)

    async def StartUpload(
        self, request: media_pb2.StartUploadRequest, context: object
    ) -> media_pb2.StartUploadResponse:
        owner_id = caller().user_id
        folder = new_folder()
        expire_time = clock.now() + _FORM_SECONDS * 1_000_000
        target = self._blobs.upload_target(folder, _FILE, request.content_type, request.size, _FORM_SECONDS)
        if target is None:
            text = "images of this suite are kept in files: upload with UploadMedia"
            raise errors.FailedPrecondition(Reason.REASON_DIRECT_UPLOAD_UNSUPPORTED, text)

        def start(db: Database) -> media_pb2.StartUploadResponse:
            upload_id = direct_uploads.start(db, owner_id, folder, request.content_type, request.size)
            return media_pb2.StartUploadResponse(
                upload_id=upload_id, url=target.url, fields=target.fields, expire_time=clock.timestamp(expire_time)
            )

        return await self._replies.write(request, media_pb2.StartUploadResponse, start)

    async def FinishUpload(
        self, request: media_pb2.FinishUploadRequest, context: object
    ) -> media_pb2.FinishUploadResponse:
        try:
            return await self._finished(caller().user_id, request)
        except errors.Error:
            # The same request may have been faster, and then the upload is gone.
            earlier = await self._replies.find(request, media_pb2.FinishUploadResponse)
            if earlier is None:
                raise
            return earlier

    async def GetMedia(self, request: media_pb2.GetMediaRequest, context: object) -> media_pb2.GetMediaResponse:
        media = await self._store.read(records.get, request.media_id, caller().user_id)
        return media_pb2.GetMediaResponse(media=self._messages.media(media))

    async def DownloadMedia(
        self, request: media_pb2.DownloadMediaRequest, context: object
    ) -> AsyncGenerator[media_pb2.DownloadMediaResponse, None]:
        media = await self._store.read(records.get, request.media_id, caller().user_id)
        variant = _chosen(self._messages.media(media), request)
        yield media_pb2.DownloadMediaResponse(variant=variant)
        name = variant_name(variant.width, variant.content_type)
        with storing():
            try:
                async with aclosing(self._blobs.read(media.folder, name)) as chunks:
                    async for chunk in chunks:
                        yield media_pb2.DownloadMediaResponse(chunk=chunk)
            except BlobMissing:
                # The image was deleted a moment ago, unless it is the store that has lost something.
                await self._store.read(records.get, request.media_id, caller().user_id)
                raise

    async def UpdateMedia(
        self, request: media_pb2.UpdateMediaRequest, context: object
    ) -> media_pb2.UpdateMediaResponse:

        def update(db: Database) -> media_pb2.UpdateMediaResponse:
            media = records.set_alt_text(db, caller().user_id, request.media_id, request.alt_text)
            return media_pb2.UpdateMediaResponse(media=self._messages.media(media))

        return await self._replies.write(request, media_pb2.UpdateMediaResponse, update)

    async def DeleteMedia(
        self, request: media_pb2.DeleteMediaRequest, context: object
    ) -> media_pb2.DeleteMediaResponse:

        def delete(db: Database) -> media_pb2.DeleteMediaResponse:
            records.delete(db, caller().user_id, request.media_id)
            return media_pb2.DeleteMediaResponse()

        return await self._replies.write(request, media_pb2.DeleteMediaResponse, delete)

    async def SetAvatar(self, request: media_pb2.SetAvatarRequest, context: object) -> media_pb2.SetAvatarResponse:

        def set_avatar(db: Database) -> media_pb2.SetAvatarResponse:
            media = records.set_avatar(db, caller().user_id, request.media_id)
            return media_pb2.SetAvatarResponse(media=self._messages.media(media))

        return await self._replies.write(request, media_pb2.SetAvatarResponse, set_avatar)

    async def RemoveAvatar(
        self, request: media_pb2.RemoveAvatarRequest, context: object
    ) -> media_pb2.RemoveAvatarResponse:

        def remove_avatar(db: Database) -> media_pb2.RemoveAvatarResponse:
            records.remove_avatar(db, caller().user_id)
            return media_pb2.RemoveAvatarResponse()

        return await self._replies.write(request, media_pb2.RemoveAvatarResponse, remove_avatar)

    async def BatchGetAvatars(
        self, request: media_pb2.BatchGetAvatarsRequest, context: object
    ) -> media_pb2.BatchGetAvatarsResponse:
        found = await self._store.read(records.avatars, request.user_ids)
        return media_pb2.BatchGetAvatarsResponse(avatars=map(self._messages.media, found))

    async def _made(self, owner_id: int, header: media_pb2.UploadHeader, data: bytes) -> media_pb2.UploadMediaResponse:
        """An image of a file that has come, or the one that was made of it before."""
        earlier = await self._replies.find(header, media_pb2.UploadMediaResponse)
        if earlier is not None:
            return earlier

        async def write(add: Callable[[Database], MediaRow]) -> media_pb2.UploadMediaResponse:
            def change(db: Database) -> media_pb2.UploadMediaResponse:
                return media_pb2.UploadMediaResponse(media=self._messages.media(add(db)))

            return await self._replies.write(header, media_pb2.UploadMediaResponse, change)

        return await self._studio.make(owner_id, data, header.content_type, header.alt_text, write)

    async def _finished(self, owner_id: int, request: media_pb2.FinishUploadRequest) -> media_pb2.FinishUploadResponse:
        """An image of a file in the store."""
        started = await self._store.read(direct_uploads.get, owner_id, request.upload_id)

        async def write(add: Callable[[Database], MediaRow]) -> media_pb2.FinishUploadResponse:
            def change(db: Database) -> media_pb2.FinishUploadResponse:
                direct_uploads.finish(db, started)
                return media_pb2.FinishUploadResponse(media=self._messages.media(add(db)))

            return await self._replies.write(request, media_pb2.FinishUploadResponse, change)

        with self._room.entered(owner_id), self._room.taken(started.size):
            data = await self._uploaded(started)
            return await self._studio.make(
                owner_id, data, started.content_type, request.alt_text, write, needs_room=False
            )

    async def _uploaded(self, started: direct_uploads.UploadRow) -> bytes:
        """The file that was uploaded to the store."""
        with storing():
            try:
                data = await self._blobs.fetch(started.folder, _FILE, started.size)
            except BlobMissing:
                text = "nothing was uploaded yet: post the form that StartUpload answered first"
                raise errors.FailedPrecondition(Reason.REASON_UPLOAD_MISSING, text) from None
            except BlobTooBig:
                data = None
        if data is None or len(data) != started.size:
            raise receiving.incomplete(
                f"what was uploaded is not the file of {started.size:,} bytes that was announced"
            )
        return data


async def _header(requests: AsyncIterator[media_pb2.UploadMediaRequest]) -> media_pb2.UploadHeader:
    first = await receiving.next_part(requests)
    if first is None or not first.HasField("header"):
        raise receiving.incomplete("the first message of an upload must be its header")
    return first.header


async def _chunks(requests: AsyncIterator[media_pb2.UploadMediaRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.HasField("header"):
            raise receiving.incomplete("an upload has one header: after it come chunks only")
        yield request.chunk


def _checked_digest(header: media_pb2.UploadHeader, data: bytes) -> bytes:
    """The SHA-256 of a file that has come."""
    digest = hashlib.sha256(data).digest()
    if header.sha256 and header.sha256 != digest:
        raise receiving.incomplete("the file is not the one that the header says: its SHA-256 is another")
    return digest


def _chosen(media: media_pb2.Media, request: media_pb2.DownloadMediaRequest) -> media_pb2.Variant:
    """The widest variant that is no wider than asked for, or else the narrowest."""
    variants = [v for v in media.variants if v.content_type == (request.content_type or "image/webp")]
    fitting = [v for v in variants if not request.max_width or v.width <= request.max_width]
    return fitting[-1] if fitting else variants[0]

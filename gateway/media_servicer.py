"""MediaService: images, passed on piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager

from chassis.admission import overloaded
from chassis.call import caller
from gateway import views
from gateway.backends import Backends
from insta.gateway.v1 import media_pb2, media_pb2_grpc
from insta.posts.v1 import media_pb2 as stored_media_pb2

# What is passed on in pieces takes as long as its client does. The posts service says how long that may be.
_TIMEOUT_SECONDS = 200.0
_MOST_DOWNLOADS = 32


class MediaServicer(media_pb2_grpc.MediaServiceServicer):
    def __init__(self, backends: Backends) -> None:
        self._media = backends.media
        self._downloads: Counter[int] = Counter()

    async def UploadMedia(
        self, requests: AsyncIterator[media_pb2.UploadMediaRequest], context: object
    ) -> media_pb2.UploadMediaResponse:
        uploaded = await self._media.UploadMedia(_passed_on(requests), timeout=_TIMEOUT_SECONDS)
        return media_pb2.UploadMediaResponse(media=views.media(uploaded.media))

    async def StartUpload(
        self, request: media_pb2.StartUploadRequest, context: object
    ) -> media_pb2.StartUploadResponse:
        started = await self._media.StartUpload(
            stored_media_pb2.StartUploadRequest(
                content_type=request.content_type, size=request.size, request_id=request.request_id
            )
        )
        return media_pb2.StartUploadResponse(
            upload_id=started.upload_id, url=started.url, fields=started.fields, expire_time=started.expire_time
        )

    async def FinishUpload(
        self, request: media_pb2.FinishUploadRequest, context: object
    ) -> media_pb2.FinishUploadResponse:
        finished = await self._media.FinishUpload(
            stored_media_pb2.FinishUploadRequest(
                upload_id=request.upload_id, alt_text=request.alt_text, request_id=request.request_id
            ),
            timeout=_TIMEOUT_SECONDS,
        )
        return media_pb2.FinishUploadResponse(media=views.media(finished.media))

    async def GetMedia(self, request: media_pb2.GetMediaRequest, context: object) -> media_pb2.GetMediaResponse:
        found = await self._media.GetMedia(stored_media_pb2.GetMediaRequest(media_id=request.media_id))
        return media_pb2.GetMediaResponse(media=views.media(found.media))

    async def DownloadMedia(
        self, request: media_pb2.DownloadMediaRequest, context: object
    ) -> AsyncGenerator[media_pb2.DownloadMediaResponse, None]:
        stored_request = stored_media_pb2.DownloadMediaRequest(
            media_id=request.media_id, max_width=request.max_width, content_type=request.content_type
        )
        with self._downloading(caller().user_id):
            async for part in self._media.DownloadMedia(stored_request, timeout=_TIMEOUT_SECONDS):
                if part.HasField("variant"):
                    yield media_pb2.DownloadMediaResponse(variant=views.variant(part.variant))
                else:
                    yield media_pb2.DownloadMediaResponse(chunk=part.chunk)

    async def UpdateMedia(
        self, request: media_pb2.UpdateMediaRequest, context: object
    ) -> media_pb2.UpdateMediaResponse:
        updated = await self._media.UpdateMedia(
            stored_media_pb2.UpdateMediaRequest(
                media_id=request.media_id, alt_text=request.alt_text, request_id=request.request_id
            )
        )
        return media_pb2.UpdateMediaResponse(media=views.media(updated.media))

    async def DeleteMedia(
        self, request: media_pb2.DeleteMediaRequest, context: object
    ) -> media_pb2.DeleteMediaResponse:
        await self._media.DeleteMedia(
            stored_media_pb2.DeleteMediaRequest(media_id=request.media_id, request_id=request.request_id)
        )
        return media_pb2.DeleteMediaResponse()

    @contextmanager
    def _downloading(self, user_id: int) -> Iterator[None]:
        """Let somebody download. Who does not read what comes would else take the places of all other calls.

        Raises:
            ResourceExhausted: too many downloads of theirs are under way.
        """
        if self._downloads[user_id] >= _MOST_DOWNLOADS:
            raise overloaded(f"{_MOST_DOWNLOADS} downloads of the account are under way")
        self._downloads[user_id] += 1
        try:
            yield
        finally:
            self._downloads[user_id] -= 1
            if not self._downloads[user_id]:
                del self._downloads[user_id]


async def _passed_on(
    requests: AsyncIterator[media_pb2.UploadMediaRequest],
) -> AsyncIterator[stored_media_pb2.UploadMediaRequest]:
    async for request in requests:
        if request.HasField("header"):
            header = request.header
            yield stored_media_pb2.UploadMediaRequest(
                header=stored_media_pb2.UploadHeader(
                    content_type=header.content_type,
                    size=header.size,
                    alt_text=header.alt_text,
                    request_id=header.request_id,
                    sha256=header.sha256,
                )
            )
        else:
            yield stored_media_pb2.UploadMediaRequest(chunk=request.chunk)

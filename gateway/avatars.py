"""The avatars of people, which the posts service has. While it cannot be reached people are shown without: better than
not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from gateway import views
from insta.gateway.v1 import media_pb2
from insta.posts.v1 import media_pb2 as stored_media_pb2

_TIMEOUT_SECONDS = 2.0
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Avatars:
    """Avatars by the ids of their owners.

    Args:
        media: Stub of MediaService.
    """

    def __init__(self, media: Any) -> None:
        self._media = media

    async def of(self, user_ids: Iterable[int]) -> Mapping[int, media_pb2.Media]:
        """The avatars that up to 100 people have; none while the posts service cannot be reached."""
        return await self.known(user_ids) or {}

    async def known(self, user_ids: Iterable[int]) -> Mapping[int, media_pb2.Media] | None:
        """The avatars that up to 100 people have. None: the posts service cannot be reached."""
        request = stored_media_pb2.BatchGetAvatarsRequest(user_ids=user_ids)
        if not request.user_ids:
            return {}
        try:
            found = await self._media.BatchGetAvatars(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as failure:
            if failure.code() not in _AWAY:
                raise
            return None
        return {stored.owner_id: views.media(stored) for stored in found.avatars}

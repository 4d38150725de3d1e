"""Rows as messages of the contract."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Sequence

from chassis import clock
from insta.posts.v1 import media_pb2, posts_pb2
from services.posts.media.blob_store import BlobStore
from services.posts.media.images import variant_name
from services.posts.media.records import MediaRow
from services.posts.posts import PostRow

# What posts may take in an answer. gRPC's clients receive 4 MiB, of which the gateway takes up to 0.4 for a hundred
# authors and counters.
ANSWER_BYTES = 3 * 1024 * 1024
# The most that a post takes without its images: a hundred fit.
_POST_BYTES = 30_000
# The most that an image takes, if each of its six addresses has 2,000 bytes.
_IMAGE_BYTES = 17_000
# Images: some 6 MB.
_KEPT = 5_000
# Half a microsecond a post less than `json.loads`.
_decode = json.JSONDecoder().raw_decode


def fitting(posts: Sequence[posts_pb2.Post]) -> int:
    """How many of the posts, from the first on, there is room for in an answer."""
    images = sum(len(post.media) for post in posts)
    # Measuring costs as much as sending: it is for what may be too much.
    if len(posts) * _POST_BYTES + images * _IMAGE_BYTES <= ANSWER_BYTES:
        return len(posts)
    taken = itertools.accumulate(post.ByteSize() for post in posts)
    return sum(bytes_so_far <= ANSWER_BYTES for bytes_so_far in taken)


class Messages:
    """Makes them.

    Args:
        blobs: Tells where images are to be had.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        # A tenth of the time that making it takes, where its addresses stay the same.
        self._kept = functools.lru_cache(_KEPT)(lambda row: self._made(row).SerializeToString())

    def media(self, row: MediaRow) -> media_pb2.Media:
        """An image."""
        if self._blobs.url_seconds is None:
            return media_pb2.Media.FromString(self._kept(row))
        message = self._made(row)
        clock.set_timestamp(message.url_expire_time, clock.now() + self._blobs.url_seconds * 1_000_000)
        return message

    def post(self, post: PostRow, media: Iterable[MediaRow]) -> posts_pb2.Post:
        """A post with its images."""
        message = posts_pb2.Post(
            id=post.id,
            author_id=post.author_id,
            title=post.title,
            description=post.description,
            image_urls=_decode(post.image_urls)[0],
            media=map(self.media, media),
        )
        clock.set_timestamp(message.create_time, post.create_time)
        clock.set_timestamp(message.update_time, post.update_time)
        return message

    def posts(self, posts: Iterable[PostRow], media: Sequence[MediaRow]) -> list[posts_pb2.Post]:
        """Posts with the images that are in them, which are in the order of their posts."""
        by_post = {post_id: list(rows) for post_id, rows in itertools.groupby(media, lambda row: row.post_id)}
        return [self.post(post, by_post.get(post.id, ())) for post in posts]

    def _made(self, row: MediaRow) -> media_pb2.Media:
        message = media_pb2.Media(
            id=row.id,
            owner_id=row.owner_id,
            content_type=row.content_type,
            width=row.width,
            height=row.height,
            blurhash=row.blurhash,
            alt_text=row.alt_text,
            variants=[self._variant(row.folder, *variant) for variant in json.loads(row.variants)],
        )
        clock.set_timestamp(message.create_time, row.create_time)
        return message

    def _variant(self, folder: str, width: int, height: int, content_type: str, size: int) -> media_pb2.Variant:
        url = self._blobs.url(folder, variant_name(width, content_type))
        return media_pb2.Variant(width=width, height=height, content_type=content_type, size=size, url=url)

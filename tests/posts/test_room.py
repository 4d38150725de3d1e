"""How many posts one answer has room for."""

from __future__ import annotations

from insta.posts.v1 import media_pb2, posts_pb2
from services.posts import messages
from services.posts.messages import fitting

_WIDEST = "\N{GRINNING FACE}"


def test_a_hundred_of_the_largest_posts_without_images_fit() -> None:
    posts = [_largest()] * 100

    assert fitting(posts) == 100
    assert _size(posts) <= messages.ANSWER_BYTES


def test_ten_of_the_largest_posts_with_images_fit() -> None:
    posts = [_largest(images=10, address=2_000)] * 10

    assert fitting(posts) == 10
    assert _size(posts) <= messages.ANSWER_BYTES


def test_as_many_posts_fit_as_there_are_bytes_for() -> None:
    """As with signed addresses of S3."""
    posts = [_largest(images=10, address=address) for address in (100, 1_100) * 50]

    room = fitting(posts)

    assert 0 < room < 100
    assert _size(posts[:room]) <= messages.ANSWER_BYTES < _size(posts[: room + 1])


def _largest(images: int = 0, address: int = 2_000) -> posts_pb2.Post:
    """A post as large as its contract allows, with images whose addresses have so many bytes."""
    post = posts_pb2.Post(
        id=2**63 - 1,
        author_id=2**63 - 1,
        title=_WIDEST * 255,
        description=_WIDEST * 2000,
        image_urls=["https://example.com/".ljust(2048, "a")] * 10,
        media=[_image(address)] * images,
    )
    post.create_time.FromNanoseconds(2**60 - 1)
    post.update_time.FromNanoseconds(2**60 - 1)
    return post


def _image(address: int) -> media_pb2.Media:
    variant = media_pb2.Variant(
        width=5_000, height=5_000, content_type="image/jpeg", size=2**31, url="https://example.com/".ljust(address, "a")
    )
    image = media_pb2.Media(
        id=2**63 - 1,
        owner_id=2**63 - 1,
        content_type="image/jpeg",
        width=5_000,
        height=5_000,
        blurhash="L" * 64,
        alt_text=_WIDEST * 1000,
        variants=[variant] * 6,
    )
    image.create_time.FromNanoseconds(2**60 - 1)
    image.url_expire_time.FromNanoseconds(2**60 - 1)
    return image


def _size(posts: list[posts_pb2.Post]) -> int:
    return posts_pb2.ListPostsByAuthorResponse(posts=posts).ByteSize()

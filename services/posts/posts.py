"""Posts: written by their authors, with images, counted per author in the transaction that adds or removes one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chassis import clock, errors
from chassis.call import Caller
from chassis.errors import Reason
from chassis.query import among, compiled, param
from chassis.store import Database
from services.posts import authors, post_events
from services.posts.media import records
from services.posts.media.records import MediaRow
from services.posts.models import AuthorCounter, Post


class PostRow(NamedTuple):
    """A row of `Post`."""

    id: int
    author_id: int
    title: str
    description: str
    image_urls: str
    create_time: int
    update_time: int


class AuthorCount(NamedTuple):
    """How many posts an author has."""

    author_id: int
    post_count: int


columns = [getattr(Post, name) for name in PostRow._fields]
_by_id = compiled(Post.select(*columns).where(Post.id == param("id")), row=PostRow)
_by_ids = compiled(Post.select(*columns).where(among(Post.id, "ids")), row=PostRow)
_by_author = compiled(
    Post.select(*columns)
    .where(Post.author_id == param("author_id"), Post.id < param("below"))
    .order_by(Post.id.desc())
    .limit(param("limit")),
    row=PostRow,
)
_insert = compiled(
    Post.insert(
        author_id=param("author_id"),
        title=param("title"),
        description=param("description"),
        image_urls=param("image_urls"),
        create_time=param("now"),
        update_time=param("now"),
    ).returning(*columns),
    row=PostRow,
)
_update = compiled(
    Post.update(
        title=param("title"),
        description=param("description"),
        image_urls=param("image_urls"),
        update_time=param("now"),
    )
    .where(Post.id == param("id"))
    .returning(*columns),
    row=PostRow,
)
_delete = compiled(Post.delete().where(Post.id == param("id")))
_counts = compiled(
    AuthorCounter.select(AuthorCounter.author_id, AuthorCounter.post_count).where(
        among(AuthorCounter.author_id, "ids"), AuthorCounter.post_count > 0
    ),
    row=AuthorCount,
)
_count = compiled(
    AuthorCounter.insert(author_id=param("author_id"), post_count=param("change")).on_conflict(
        conflict_target=[AuthorCounter.author_id],
        update={AuthorCounter.post_count: AuthorCounter.post_count + param("change")},
    )
)


def create(
    db: Database, author_id: int, title: str, description: str, image_urls: Sequence[str], media_ids: Sequence[int]
) -> tuple[PostRow, list[MediaRow]]:
    """Add a post. Returns it with its images.

    Raises:
        Unauthenticated: the author was deleted, also if that happened a moment ago.
        NotFound: there is no such image.
        PermissionDenied: an image is another's.
        FailedPrecondition: an image is shown already.
    """
    authors.refuse_gone(db, author_id)
    post = _insert.one(
        db,
        author_id=author_id,
        title=title,
        description=description,
        image_urls=json.dumps(list(image_urls)),
        now=clock.now(),
    )
    assert post is not None
    _count.run(db, author_id=author_id, change=1)
    media = records.show_in_post(db, post.id, author_id, media_ids) if media_ids else []
    post_events.post_created(db, post.id, author_id)
    return post, media


def get(db: Database, post_id: int) -> PostRow:
    """Read one post.

    Raises:
        NotFound: there is none with this id.
    """
    post = _by_id.one(db, id=post_id)
    if post is None:
        raise errors.NotFound(Reason.REASON_POST_NOT_FOUND, f"there is no post {post_id}")
    return post


def get_with_media(db: Database, post_id: int) -> tuple[PostRow, list[MediaRow]]:
    """Read one post and its images.

    Raises:
        NotFound: there is none with this id.
    """
    return get(db, post_id), records.of_posts(db, [post_id])


def batch_with_media(db: Database, post_ids: Sequence[int]) -> tuple[list[PostRow], list[MediaRow]]:
    """Read the posts among `post_ids` that exist, each once, and their images."""
    found = _by_ids.all(db, ids=post_ids)
    return found, records.of_posts(db, [post.id for post in found])


def by_author(db: Database, author_id: int, below: int, limit: int) -> list[PostRow]:
    """The posts of an author with ids below `below`, newest first."""
    return _by_author.all(db, author_id=author_id, below=below, limit=limit)


def counts(db: Database, author_ids: Sequence[int]) -> list[AuthorCount]:
    """How many posts each of the authors has; who has none is left out."""
    return _counts.all(db, ids=author_ids)


def update(db: Database, caller: Caller, post_id: int, changes: Mapping[str, Any]) -> tuple[PostRow, list[MediaRow]]:
    """Set fields of a post of the caller's own. Returns it with its images.

    Args:
        changes: New values of title, description, image_urls, and media: the ids of the images.

    Raises:
        NotFound: there is no such post or image.
        PermissionDenied: one of them is another's.
        FailedPrecondition: an image is shown elsewhere.
    """
    post = get(db, post_id)
    if post.author_id != caller.user_id:
        raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, "only the author of a post can change it")
    media = records.of_posts(db, [post_id])
    values: dict[str, Any] = {
        "title": post.title,
        "description": post.description,
        "image_urls": json.loads(post.image_urls),
        "media": [shown.id for shown in media],
    }
    if changes.items() <= values.items():
        return post, media
    if "media" in changes:
        media = records.show_in_post(db, post_id, post.author_id, changes["media"])
    values.update(changes)
    changed = _update.one(
        db,
        id=post_id,
        title=values["title"],
        description=values["description"],
        image_urls=json.dumps(values["image_urls"]),
        now=clock.now(),
    )
    assert changed is not None
    post_events.post_updated(db, post_id, post.author_id)
    return changed, media


def delete(db: Database, caller: Caller, post_id: int) -> None:
    """Delete a post: the caller's own, or as staff anybody's.

    Raises:
        NotFound: there is no such post.
        PermissionDenied: it is another's and the caller is not staff.
    """
    post = get(db, post_id)
    if post.author_id != caller.user_id and not caller.staff:
        raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, "only the author of a post and staff can delete it")
    records.delete_of_posts(db, [post_id])
    _delete.run(db, id=post_id)
    _count.run(db, author_id=post.author_id, change=-1)
    post_events.post_deleted(db, post_id, post.author_id)


def missing(db: Database, post_ids: Sequence[int]) -> list[int]:
    """Those of `post_ids` that do not exist."""
    return list(set(post_ids) - {post.id for post in _by_ids.all(db, ids=post_ids)})

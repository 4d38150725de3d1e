"""The rows of images: whose they are, what shows them, and when they go.

An image is in a post, an avatar, or neither; then it goes at its time. Its blobs are in a folder of the store, which is
among the discards until the transaction that adds the row, and again from the one on that deletes it (`discards.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import peewee

from chassis import clock, errors
from chassis.errors import Reason
from chassis.query import among, compiled, param
from chassis.store import Database
from services.posts import authors, post_events
from services.posts.media import discards
from services.posts.media.images import Processed
from services.posts.models import Media

# An image that nothing shows goes after so long.
KEPT_MICROS = 24 * 3600 * 1_000_000
# So many of them one person can have.
UNUSED_LIMIT = 200


class MediaRow(NamedTuple):
    """A row of `Media`."""

    id: int
    owner_id: int
    folder: str
    content_type: str
    width: int
    height: int
    blurhash: str
    alt_text: str
    variants: str
    create_time: int
    post_id: int | None
    avatar_of: int | None

    @property
    def shown(self) -> bool:
        """Whether a post or an avatar shows it."""
        return self.post_id is not None or self.avatar_of is not None


_columns = [getattr(Media, name) for name in MediaRow._fields]
_by_id = compiled(Media.select(*_columns).where(Media.id == param("id")), row=MediaRow)
_by_ids = compiled(Media.select(*_columns).where(among(Media.id, "ids")), row=MediaRow)
_of_posts = compiled(
    Media.select(*_columns).where(among(Media.post_id, "post_ids")).order_by(Media.post_id, Media.position),
    row=MediaRow,
)
_avatars = compiled(Media.select(*_columns).where(among(Media.avatar_of, "user_ids")), row=MediaRow)
_insert = compiled(
    Media.insert(
        owner_id=param("owner_id"),
        folder=param("folder"),
        content_type=param("content_type"),
        width=param("width"),
        height=param("height"),
        blurhash=param("blurhash"),
        alt_text=param("alt_text"),
        variants=param("variants"),
        create_time=param("now"),
        position=0,
        expire_time=param("expire_time"),
    ).returning(*_columns),
    row=MediaRow,
)
_set_alt_text = compiled(
    Media.update(alt_text=param("alt_text")).where(Media.id == param("id")).returning(*_columns), row=MediaRow
)
_to_post = compiled(
    Media.update(post_id=param("post_id"), position=param("position"), expire_time=None)
    .where(Media.id == param("id"))
    .returning(*_columns),
    row=MediaRow,
)
_to_avatar = compiled(
    Media.update(avatar_of=Media.owner_id, expire_time=None).where(Media.id == param("id")).returning(*_columns),
    row=MediaRow,
)
_hide = compiled(
    Media.update(post_id=None, avatar_of=None, position=0, expire_time=param("expire_time")).where(
        Media.id == param("id")
    )
)
_count_unused = compiled(
    Media.select(peewee.fn.count(Media.id)).where(Media.owner_id == param("owner_id"), Media.expire_time.is_null(False))
)
_delete = compiled(Media.delete().where(Media.id == param("id")))
_delete_of_posts = compiled(
    Media.delete().where(among(Media.post_id, "post_ids")).returning(Media.folder, Media.owner_id)
)
_some_of_owner = Media.select(Media.id).where(Media.owner_id == param("owner_id")).limit(param("limit"))
_delete_of_owner = compiled(Media.delete().where(Media.id.in_(_some_of_owner)).returning(Media.folder))
_expired = compiled(Media.select(Media.id).where(Media.expire_time <= param("now")).limit(1))
_some_expired = Media.select(Media.id).where(Media.expire_time <= param("now")).limit(param("limit"))
_delete_expired = compiled(Media.delete().where(Media.id.in_(_some_expired)).returning(Media.folder, Media.owner_id))
_count_of_owner = compiled(Media.select(peewee.fn.count(Media.id)).where(Media.owner_id == param("owner_id")))


def begin(db: Database, owner_id: int, folder: str, needs_room: bool = True) -> None:
    """Let a folder of the store be written to: unless an image is made of it, it is deleted after a day.

    Args:
        needs_room: False if it is in place of another one that was begun.

    Raises:
        Unauthenticated: the owner was deleted.
        ResourceExhausted: they have too many images that nothing shows.
    """
    authors.refuse_gone(db, owner_id)
    if needs_room:
        require_room(db, owner_id)
    discards.hold(db, folder, owner_id, clock.now() + KEPT_MICROS)


def require_room(db: Database, owner_id: int) -> None:
    """Refuse another image to whom has too many that nothing shows, or are under way.

    Raises:
        ResourceExhausted: they do.
    """
    if _count_unused.all(db, owner_id=owner_id)[0][0] + discards.count_held(db, owner_id) >= UNUSED_LIMIT:
        text = (
            f"the account has {UNUSED_LIMIT} images that neither a post nor an avatar shows; delete some, or show them"
        )
        raise errors.ResourceExhausted(Reason.REASON_MEDIA_LIMIT, text)


def add(db: Database, owner_id: int, folder: str, content_type: str, processed: Processed, alt_text: str) -> MediaRow:
    """Make an image of a folder whose blobs are in the store.

    Raises:
        Unauthenticated: the owner was deleted, also if that happened a moment ago.
        Unavailable: it took a day, and the blobs are being deleted.
    """
    authors.refuse_gone(db, owner_id)
    if not discards.take_out(db, folder):
        raise errors.unavailable()
    now = clock.now()
    added = _insert.one(
        db,
        owner_id=owner_id,
        folder=folder,
        content_type=content_type,
        width=processed.width,
        height=processed.height,
        blurhash=processed.blurhash,
        alt_text=alt_text,
        variants=json.dumps([[v.width, v.height, v.content_type, len(v.data)] for v in processed.variants]),
        now=now,
        expire_time=now + KEPT_MICROS,
    )
    assert added is not None
    return added


def get(db: Database, media_id: int, viewer_id: int) -> MediaRow:
    """An image that somebody may see: their own, or one that is shown.

    Raises:
        NotFound: there is none.
    """
    found = _by_id.one(db, id=media_id)
    if found is None or not (found.shown or found.owner_id == viewer_id):
        raise _not_found(media_id)
    return found


def of_posts(db: Database, post_ids: Sequence[int]) -> list[MediaRow]:
    """The images in posts; of each post in their order."""
    return _of_posts.all(db, post_ids=post_ids)


def avatars(db: Database, user_ids: Sequence[int]) -> list[MediaRow]:
    """The avatars that some users have."""
    return _avatars.all(db, user_ids=user_ids)


def show_in_post(db: Database, post_id: int, owner_id: int, media_ids: Sequence[int]) -> list[MediaRow]:
    """Let a post show these images and no others, in this order.

    Raises:
        NotFound: there is no such image.
        PermissionDenied: it is another's.
        FailedPrecondition: something else shows it.
    """
    before = {media.id: media for media in _of_posts.all(db, post_ids=[post_id])}
    wanted = {media.id: media for media in _by_ids.all(db, ids=media_ids)}
    for media_id in media_ids:
        media = _owned(wanted.get(media_id), media_id, owner_id)
        if media.shown and media.post_id != post_id:
            raise _in_use(media)
    for media_id in before.keys() - wanted.keys():
        _hide_now(db, media_id)
    shown = (
        _to_post.one(db, id=media_id, post_id=post_id, position=position) for position, media_id in enumerate(media_ids)
    )
    return [media for media in shown if media is not None]


def set_avatar(db: Database, owner_id: int, media_id: int) -> MediaRow:
    """Let an image be its owner's avatar, in place of the one before.

    Raises:
        NotFound: there is no such image.
        PermissionDenied: it is another's.
        FailedPrecondition: a post shows it.
    """
    authors.refuse_gone(db, owner_id)
    media = _owned(_by_id.one(db, id=media_id), media_id, owner_id)
    if media.post_id is not None:
        raise _in_use(media)
    if media.avatar_of is not None:
        return media
    for before in avatars(db, [owner_id]):
        _hide_now(db, before.id)
    shown = _to_avatar.one(db, id=media_id)
    assert shown is not None
    post_events.avatar_changed(db, owner_id)
    return shown


def remove_avatar(db: Database, owner_id: int) -> None:
    """Let somebody be shown without an avatar."""
    for media in avatars(db, [owner_id]):
        _hide_now(db, media.id)
        post_events.avatar_changed(db, owner_id)


def set_alt_text(db: Database, owner_id: int, media_id: int, alt_text: str) -> MediaRow:
    """Say what is to be seen on an image of one's own.

    Raises:
        NotFound: there is no such image.
        PermissionDenied: it is another's.
    """
    media = _owned(_by_id.one(db, id=media_id), media_id, owner_id)
    if media.alt_text == alt_text:
        return media
    changed = _set_alt_text.one(db, id=media_id, alt_text=alt_text)
    assert changed is not None
    if changed.post_id is not None:
        post_events.post_updated(db, changed.post_id, owner_id)
    return changed


def delete(db: Database, owner_id: int, media_id: int) -> None:
    """Delete an image of one's own that nothing shows.

    Raises:
        NotFound: there is no such image.
        PermissionDenied: it is another's.
        FailedPrecondition: something shows it.
    """
    media = _owned(_by_id.one(db, id=media_id), media_id, owner_id)
    if media.shown:
        raise _in_use(media)
    _delete.run(db, id=media_id)
    discards.add(db, media.folder, owner_id)


def delete_of_posts(db: Database, post_ids: Sequence[int]) -> None:
    """Delete the images of posts that are deleted in the same transaction."""
    for folder, owner_id in _delete_of_posts.all(db, post_ids=post_ids):
        discards.add(db, folder, owner_id)


def delete_some_of(db: Database, owner_id: int, limit: int) -> int:
    """Delete some images of somebody who is gone. Returns how many."""
    deleted = _delete_of_owner.all(db, owner_id=owner_id, limit=limit)
    for (folder,) in deleted:
        discards.add(db, folder, owner_id)
    return len(deleted)


def any_expired(db: Database, now: int) -> bool:
    """Whether nothing showed some image for a day."""
    return bool(_expired.all(db, now=now))


def delete_expired(db: Database, now: int, limit: int) -> int:
    """Delete some images that nothing showed for a day. Returns how many."""
    expired = _delete_expired.all(db, now=now, limit=limit)
    for folder, owner_id in expired:
        discards.add(db, folder, owner_id)
    return len(expired)


def count_of(db: Database, owner_id: int) -> int:
    """How many images somebody has."""
    count: int = _count_of_owner.all(db, owner_id=owner_id)[0][0]
    return count


def _hide_now(db: Database, media_id: int) -> None:
    _hide.run(db, id=media_id, expire_time=clock.now() + KEPT_MICROS)


def _owned(media: MediaRow | None, media_id: int, owner_id: int) -> MediaRow:
    if media is None or not (media.shown or media.owner_id == owner_id):
        raise _not_found(media_id)
    if media.owner_id != owner_id:
        text = f"image {media_id} is somebody else's: only who uploaded it can change, show or delete it"
        raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, text)
    return media


def _not_found(media_id: int) -> errors.NotFound:
    return errors.NotFound(Reason.REASON_MEDIA_NOT_FOUND, f"there is no image {media_id}")


def _in_use(media: MediaRow) -> errors.FailedPrecondition:
    where = "an avatar" if media.post_id is None else f"post {media.post_id}"
    text = f"image {media.id} is shown already: {where} shows it; take it from there first"
    return errors.FailedPrecondition(Reason.REASON_MEDIA_IN_USE, text)

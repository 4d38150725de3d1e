"""Comments on posts, counted in the transaction that adds or removes them."""

from __future__ import annotations

from typing import NamedTuple

from chassis import clock, errors
from chassis.errors import Reason
from chassis.query import compiled, param
from chassis.store import Database
from services.social import counters, erasure, social_events
from services.social.models import Comment


class CommentRow(NamedTuple):
    """A row of `Comment`."""

    id: int
    post_id: int
    author_id: int
    text: str
    create_time: int
    update_time: int


_columns = [getattr(Comment, name) for name in CommentRow._fields]
_by_id = compiled(Comment.select(*_columns).where(Comment.id == param("id")), row=CommentRow)
_on_post = compiled(
    Comment.select(*_columns)
    .where(Comment.post_id == param("post_id"), Comment.id < param("below"))
    .order_by(Comment.id.desc())
    .limit(param("limit")),
    row=CommentRow,
)
_insert = compiled(
    Comment.insert(
        post_id=param("post_id"),
        author_id=param("author_id"),
        text=param("text"),
        create_time=param("now"),
        update_time=param("now"),
    ).returning(*_columns),
    row=CommentRow,
)
_update = compiled(
    Comment.update(text=param("text"), update_time=param("now")).where(Comment.id == param("id")).returning(*_columns),
    row=CommentRow,
)
_delete = compiled(Comment.delete().where(Comment.id == param("id")))


def create(db: Database, post_id: int, author_id: int, text: str) -> CommentRow:
    """Add a comment.

    Raises:
        NotFound: the post was deleted, also if that happened a moment ago.
        Unauthenticated: the author was.
    """
    erasure.refuse_gone_caller(db, author_id)
    erasure.refuse_gone_post(db, post_id)
    comment = _insert.one(db, post_id=post_id, author_id=author_id, text=text, now=clock.now())
    assert comment is not None
    counters.change_post(db, post_id, comments=1)
    social_events.comment_created(db, comment.id, post_id, author_id)
    return comment


def get(db: Database, comment_id: int) -> CommentRow:
    """Read one comment.

    Raises:
        NotFound: there is none with this id.
    """
    comment = _by_id.one(db, id=comment_id)
    if comment is None:
        raise errors.NotFound(Reason.REASON_COMMENT_NOT_FOUND, f"there is no comment {comment_id}")
    return comment


def update(db: Database, author_id: int, comment_id: int, text: str) -> CommentRow:
    """Change the text of a comment of one's own.

    Raises:
        NotFound: there is no such comment.
        PermissionDenied: it is another's.
    """
    comment = get(db, comment_id)
    if comment.author_id != author_id:
        raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, "only the author of a comment can change it")
    if comment.text == text:
        return comment
    changed = _update.one(db, id=comment_id, text=text, now=clock.now())
    assert changed is not None
    social_events.comment_updated(db, comment_id, comment.post_id, author_id)
    return changed


def delete(db: Database, comment_id: int) -> None:
    """Delete a comment.

    Raises:
        NotFound: there is no such comment.
    """
    comment = get(db, comment_id)
    _delete.run(db, id=comment_id)
    counters.change_post(db, comment.post_id, comments=-1)
    social_events.comment_deleted(db, comment_id, comment.post_id, comment.author_id)


def on_post(db: Database, post_id: int, below: int, limit: int) -> list[CommentRow]:
    """The comments on a post with ids below `below`, newest first."""
    return _on_post.all(db, post_id=post_id, below=below, limit=limit)

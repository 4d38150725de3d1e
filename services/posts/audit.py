"""What an audit compares of the posts service's rows."""

from __future__ import annotations

from chassis.consistency import CounterColumn, Reference, Rows
from chassis.replay import Reply
from chassis.tombstones import POST, USER
from services.posts import posts
from services.posts.models import AuthorCounter, Media, Post, Upload

ROWS = Rows(
    counters=[CounterColumn(AuthorCounter.post_count, Post.author_id)],
    references=[Reference(Post.author_id, USER), Reference(Media.owner_id, USER), Reference(Media.post_id, POST)],
    traces=[
        Reference(AuthorCounter.author_id, USER),
        Reference(Upload.owner_id, USER),
        Reference(Reply.caller_id, USER),
    ],
    missing={POST: posts.missing},
    appends=True,
    reads=["users"],
)

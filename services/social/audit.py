"""What an audit compares of the social service's rows."""

from __future__ import annotations

from chassis.consistency import CounterColumn, Reference, Rows
from chassis.replay import Reply
from chassis.tombstones import POST, USER
from services.social.models import Comment, Follow, Like, PostCounter, UserCounter

ROWS = Rows(
    counters=[
        CounterColumn(PostCounter.like_count, Like.post_id),
        CounterColumn(PostCounter.comment_count, Comment.post_id),
        CounterColumn(UserCounter.follower_count, Follow.followee_id),
        CounterColumn(UserCounter.followee_count, Follow.follower_id),
    ],
    references=[
        Reference(Like.user_id, USER),
        Reference(Like.post_id, POST),
        Reference(Comment.author_id, USER),
        Reference(Comment.post_id, POST),
        Reference(Follow.follower_id, USER),
        Reference(Follow.followee_id, USER),
    ],
    traces=[
        Reference(PostCounter.post_id, POST),
        Reference(UserCounter.user_id, USER),
        Reference(Reply.caller_id, USER),
    ],
    appends=True,
    reads=["users", "posts"],
)

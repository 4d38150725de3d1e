"""What the social service is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chassis import background, events
from chassis.background import BackgroundTask
from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Parts, Service
from services.social import consumers, erasure, existence
from services.social.comment_servicer import CommentServicer
from services.social.event_servicer import EventServicer
from services.social.follow_servicer import FollowServicer
from services.social.like_servicer import LikeServicer
from services.social.stats_servicer import StatsServicer


def _servicers(parts: Parts) -> Mapping[str, object]:
    pager = Pager(parts.store.write_now(secret, "paging"))
    parts.store.write_now(events.begin)
    posts = existence.Posts(parts.channels["posts"])
    users = existence.Users(parts.channels["users"])
    return {
        "insta.social.v1.FollowService": FollowServicer(parts.store, parts.replies, pager, users),
        "insta.social.v1.LikeService": LikeServicer(parts.store, parts.replies, pager, posts),
        "insta.social.v1.CommentService": CommentServicer(parts.store, parts.replies, pager, posts),
        "insta.social.v1.StatsService": StatsServicer(parts.store, consumers.heard_of_all_posts(parts)),
        "insta.social.v1.EventService": EventServicer(parts.store, parts.draining),
    }


def _background(parts: Parts) -> Sequence[BackgroundTask]:
    return (
        BackgroundTask("consumer-users", consumers.users(parts).step, pause_seconds=0.02),
        BackgroundTask("consumer-posts", consumers.posts(parts).step, pause_seconds=0.02),
        background.erasing(parts.store, erasure.erase_some),
        background.forgetting_events(parts.store),
    )


SERVICE = Service(
    name="social",
    port=50054,
    metrics_port=9093,
    contracts=(
        "insta.social.v1.FollowService",
        "insta.social.v1.LikeService",
        "insta.social.v1.CommentService",
        "insta.social.v1.StatsService",
        "insta.social.v1.EventService",
    ),
    calls=("users", "posts"),
    servicers=_servicers,
    migrations=Path(__file__).parent / "migrations",
    background=_background,
)

"""What the social service is made of."""

from __future__ import annotations

from pathlib import Path

from chassis import background, events, replay
from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Built, Parts, Service
from services.social import consumers, erasure, existence
from services.social.comment_servicer import CommentServicer
from services.social.event_servicer import EventServicer
from services.social.follow_servicer import FollowServicer
from services.social.like_servicer import LikeServicer
from services.social.stats_servicer import StatsServicer


def _build(parts: Parts) -> Built:
    pager = Pager(parts.store.write_now(secret, "paging"))
    parts.store.write_now(events.begin)
    posts = existence.Posts(parts.channels["posts"])
    users = existence.Users(parts.channels["users"])
    servicers = {
        "insta.social.v1.FollowService": FollowServicer(parts.store, parts.replies, pager, users),
        "insta.social.v1.LikeService": LikeServicer(parts.store, parts.replies, pager, posts),
        "insta.social.v1.CommentService": CommentServicer(parts.store, parts.replies, pager, posts),
        "insta.social.v1.StatsService": StatsServicer(parts.store, consumers.heard_of_all_posts(parts)),
        "insta.social.v1.EventService": EventServicer(parts.store, parts.draining),
    }
    background_tasks = (
        consumers.users(parts).task(),
        consumers.posts(parts).task(),
        background.erasing(parts.store, erasure.erase_some),
        background.forgetting_events(parts.store),
        replay.forgetting(parts.store),
    )
    return Built(servicers, background_tasks)


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
    build=_build,
    migrations=Path(__file__).parent / "migrations",
)

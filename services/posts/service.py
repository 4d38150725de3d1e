"""What the posts service is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.types import ASGIApp

from chassis import background, events
from chassis.background import BackgroundTask
from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Parts, Service
from chassis.settings import Settings
from services.posts import consumers, erasure
from services.posts.event_servicer import EventServicer
from services.posts.media import web
from services.posts.post_servicer import PostServicer


def _servicers(parts: Parts) -> Mapping[str, object]:
    pager = Pager(parts.store.write_now(secret, "paging"))
    parts.store.write_now(events.begin)
    return {
        "insta.posts.v1.PostService": PostServicer(parts.store, parts.replies, pager),
        "insta.posts.v1.EventService": EventServicer(parts.store, parts.draining),
    }


def _background(parts: Parts) -> Sequence[BackgroundTask]:
    return (
        BackgroundTask("consumer-users", consumers.users(parts).step, pause_seconds=0.02),
        background.erasing(parts.store, erasure.erase_some),
        background.forgetting_events(parts.store),
    )


def _web(settings: Settings) -> ASGIApp | None:
    return web.app(settings.data / "media")


SERVICE = Service(
    name="posts",
    port=50053,
    metrics_port=9092,
    contracts=("insta.posts.v1.PostService", "insta.posts.v1.EventService"),
    calls=("users",),
    servicers=_servicers,
    migrations=Path(__file__).parent / "migrations",
    background=_background,
    web=_web,
)

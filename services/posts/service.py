"""What the posts service is made of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from starlette.types import ASGIApp

from chassis import background, events, replay
from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Built, Parts, Service
from chassis.settings import Settings
from services.posts import consumers, erasure
from services.posts.event_servicer import EventServicer
from services.posts.media import collector, web
from services.posts.media.blob_store import open_blob_store
from services.posts.media.studio import Studio
from services.posts.media.workshop import Workshop
from services.posts.media_servicer import MediaServicer
from services.posts.messages import Messages
from services.posts.post_servicer import PostServicer


def _build(parts: Parts) -> Built:
    pager = Pager(parts.store.write_now(secret, "paging"))
    parts.store.write_now(events.begin)
    blobs = parts.closing.enter_context(closing(open_blob_store(parts.settings)))
    workshop = parts.closing.enter_context(closing(Workshop()))
    messages = Messages(blobs)
    studio = Studio(parts.store, blobs, workshop)
    servicers = {
        "insta.posts.v1.PostService": PostServicer(parts.store, parts.replies, pager, messages),
        "insta.posts.v1.MediaService": MediaServicer(parts.store, parts.replies, blobs, studio, messages),
        "insta.posts.v1.EventService": EventServicer(parts.store, parts.draining),
    }
    background_tasks = (
        consumers.users(parts).task(),
        background.erasing(parts.store, erasure.erase_some),
        background.forgetting_events(parts.store),
        replay.forgetting(parts.store),
        collector.collecting(parts.store, blobs),
    )
    return Built(servicers, background_tasks)


def _web(settings: Settings) -> ASGIApp | None:
    return web.app(settings.media_folder) if settings.media_folder else None


SERVICE = Service(
    name="posts",
    port=50053,
    metrics_port=9092,
    contracts=("insta.posts.v1.PostService", "insta.posts.v1.MediaService", "insta.posts.v1.EventService"),
    calls=("users",),
    build=_build,
    migrations=Path(__file__).parent / "migrations",
    web=_web,
)

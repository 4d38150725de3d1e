"""What the posts service is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Parts, Service
from services.posts.post_servicer import PostServicer


def _servicers(parts: Parts) -> Mapping[str, object]:
    pager = Pager(parts.store.write_now(secret, "paging"))
    return {"insta.posts.v1.PostService": PostServicer(parts.store, parts.replies, pager)}


SERVICE = Service(
    name="posts",
    port=50053,
    metrics_port=9092,
    contracts=("insta.posts.v1.PostService",),
    calls=(),
    servicers=_servicers,
    migrations=Path(__file__).parent / "migrations",
)

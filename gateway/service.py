"""What the gateway is made of."""

from __future__ import annotations

from chassis.service import Built, Parts, Service
from gateway.account_servicer import AccountServicer
from gateway.admin_servicer import AdminServicer
from gateway.backends import Backends
from gateway.feed_servicer import FeedServicer
from gateway.media_servicer import MediaServicer
from gateway.post_servicer import PostServicer
from gateway.profile_servicer import ProfileServicer


def _build(parts: Parts) -> Built:
    backends = Backends(parts.channels, parts.events)
    servicers = {
        "insta.gateway.v1.AccountService": AccountServicer(backends),
        "insta.gateway.v1.ProfileService": ProfileServicer(backends),
        "insta.gateway.v1.PostService": PostServicer(backends),
        "insta.gateway.v1.MediaService": MediaServicer(backends),
        "insta.gateway.v1.FeedService": FeedServicer(backends),
        "insta.gateway.v1.AdminService": AdminServicer(backends),
    }
    return Built(servicers)


SERVICE = Service(
    name="gateway",
    port=50051,
    metrics_port=9090,
    contracts=(
        "insta.gateway.v1.AccountService",
        "insta.gateway.v1.ProfileService",
        "insta.gateway.v1.PostService",
        "insta.gateway.v1.MediaService",
        "insta.gateway.v1.FeedService",
        "insta.gateway.v1.AdminService",
    ),
    calls=("users", "posts", "social"),
    follows=("posts",),
    build=_build,
)

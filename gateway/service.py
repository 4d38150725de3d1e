"""What the gateway is made of."""

from __future__ import annotations

from collections.abc import Mapping

from chassis.service import Parts, Service
from gateway.account_servicer import AccountServicer
from gateway.admin_servicer import AdminServicer
from gateway.backends import Backends
from gateway.feed_servicer import FeedServicer
from gateway.post_servicer import PostServicer
from gateway.profile_servicer import ProfileServicer


def _servicers(parts: Parts) -> Mapping[str, object]:
    backends = Backends(parts.channels, parts.user_events)
    return {
        "insta.gateway.v1.AccountService": AccountServicer(backends),
        "insta.gateway.v1.ProfileService": ProfileServicer(backends),
        "insta.gateway.v1.PostService": PostServicer(backends),
        "insta.gateway.v1.FeedService": FeedServicer(backends),
        "insta.gateway.v1.AdminService": AdminServicer(backends),
    }


SERVICE = Service(
    name="gateway",
    port=50051,
    metrics_port=9090,
    contracts=(
        "insta.gateway.v1.AccountService",
        "insta.gateway.v1.ProfileService",
        "insta.gateway.v1.PostService",
        "insta.gateway.v1.FeedService",
        "insta.gateway.v1.AdminService",
    ),
    calls=("users", "posts", "social"),
    servicers=_servicers,
)

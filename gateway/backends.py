"""The services behind the gateway, as stubs, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.follower import Follower
from gateway.avatars import Avatars
from gateway.short_profiles import ShortProfiles
from insta.posts.v1 import media_pb2_grpc, posts_pb2_grpc
from insta.social.v1 import comments_pb2_grpc, follows_pb2_grpc, likes_pb2_grpc, stats_pb2_grpc
from insta.users.v1 import auth_pb2_grpc, sessions_pb2_grpc, users_pb2_grpc


class Backends:
    """Stubs of what the gateway composes.

    Args:
        channels: To users, posts and social, by name.
        events: The event logs of users and posts, by name.
    """

    def __init__(self, channels: Mapping[str, Any], events: Mapping[str, Follower]) -> None:
        self.users = users_pb2_grpc.UserServiceStub(channels["users"])
        self.media = media_pb2_grpc.MediaServiceStub(channels["posts"])
        self.avatars = Avatars(self.media)
        self.short_profiles = ShortProfiles(self.users, self.avatars, events["users"], events["posts"])
        self.auth = auth_pb2_grpc.AuthServiceStub(channels["users"])
        self.sessions = sessions_pb2_grpc.SessionServiceStub(channels["users"])
        self.posts = posts_pb2_grpc.PostServiceStub(channels["posts"])
        self.follows = follows_pb2_grpc.FollowServiceStub(channels["social"])
        self.likes = likes_pb2_grpc.LikeServiceStub(channels["social"])
        self.comments = comments_pb2_grpc.CommentServiceStub(channels["social"])
        self.stats = stats_pb2_grpc.StatsServiceStub(channels["social"])

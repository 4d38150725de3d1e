"""Which services may call which, over the network: `INSTA_ALLOWED_CALLERS` adds services of the operator's own.

The gateway's services are not among these: everybody may call them. Nor are health, reflection and channelz: whoever
has a certificate of the authority may ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from chassis.settings import PREFIX, SettingError, Settings

# Everybody who verifies tokens reads the keys of the users service, and what became of its sessions.
_VERIFIERS = frozenset({"gateway", "posts", "social"})
_ALLOWED = {
    "insta.users.v1.UserService": frozenset({"gateway", "social"}),
    "insta.users.v1.AuthService": _VERIFIERS,
    "insta.users.v1.SessionService": frozenset({"gateway"}),
    "insta.users.v1.EventService": _VERIFIERS,
    "insta.posts.v1.PostService": frozenset({"gateway", "social"}),
    "insta.posts.v1.MediaService": frozenset({"gateway"}),
    "insta.posts.v1.EventService": frozenset({"gateway", "social"}),
    "insta.social.v1.FollowService": frozenset({"gateway"}),
    "insta.social.v1.LikeService": frozenset({"gateway"}),
    "insta.social.v1.CommentService": frozenset({"gateway"}),
    "insta.social.v1.StatsService": frozenset({"gateway"}),
    # For services of the operator's own.
    "insta.social.v1.EventService": frozenset(),
}


def allowed(settings: Settings) -> Mapping[str, frozenset[str]]:
    """The names of the services that may call, by the full name of the proto service that they call.

    Raises:
        SettingError: the setting names a proto service that is not here.
    """
    table = dict(_ALLOWED)
    for contract, name in settings.allowed_callers:
        if contract not in table:
            there = ", ".join(table)
            text = f"{PREFIX}ALLOWED_CALLERS={contract}={name}: must name a service behind the gateway, one of {there}"
            raise SettingError(text)
        table[contract] |= {name}
    return table

"""What the users service is made of."""

from __future__ import annotations

from pathlib import Path

from chassis import background, events, replay
from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Built, Parts, Service
from services.users import erasure, keys
from services.users.auth_servicer import AuthServicer
from services.users.event_servicer import EventServicer
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords
from services.users.session_servicer import SessionServicer
from services.users.user_servicer import UserServicer


def _build(parts: Parts) -> Built:
    parts.store.write_now(keys.ensure)
    parts.store.write_now(events.begin)
    pager = Pager(parts.store.write_now(secret, "paging"))
    passwords = Passwords(parts.settings.bcrypt_cost)
    check = PasswordCheck(parts.store, passwords, parts.settings.login_throttle)
    servicers = {
        "insta.users.v1.UserService": UserServicer(parts.store, parts.replies, pager, passwords, check),
        "insta.users.v1.AuthService": AuthServicer(parts.store, parts.replies, passwords, check),
        "insta.users.v1.SessionService": SessionServicer(parts.store, parts.replies),
        "insta.users.v1.EventService": EventServicer(parts.store, parts.draining),
    }
    background_tasks = (
        background.erasing(parts.store, erasure.erase_some),
        background.forgetting_events(parts.store),
        replay.forgetting(parts.store),
    )
    return Built(servicers, background_tasks)


SERVICE = Service(
    name="users",
    port=50052,
    metrics_port=9091,
    contracts=(
        "insta.users.v1.UserService",
        "insta.users.v1.AuthService",
        "insta.users.v1.SessionService",
        "insta.users.v1.EventService",
    ),
    calls=(),
    build=_build,
    migrations=Path(__file__).parent / "migrations",
)

"""What the users service is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chassis import events
from chassis.models import secret
from chassis.paging import Pager
from chassis.service import Parts, Service
from services.users import keys
from services.users.auth_servicer import AuthServicer
from services.users.event_servicer import EventServicer
from services.users.password_check import PasswordCheck
from services.users.passwords import Passwords
from services.users.session_servicer import SessionServicer
from services.users.user_servicer import UserServicer


def _servicers(parts: Parts) -> Mapping[str, object]:
    parts.store.write_now(keys.ensure)
    parts.store.write_now(events.begin)
    pager = Pager(parts.store.write_now(secret, "paging"))
    passwords = Passwords(parts.settings.bcrypt_cost)
    check = PasswordCheck(parts.store, passwords, parts.settings.login_throttle)
    return {
        "insta.users.v1.UserService": UserServicer(parts.store, pager, passwords, check),
        "insta.users.v1.AuthService": AuthServicer(parts.store, passwords, check),
        "insta.users.v1.SessionService": SessionServicer(parts.store),
        "insta.users.v1.EventService": EventServicer(parts.store, parts.draining),
    }


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
    servicers=_servicers,
    migrations=Path(__file__).parent / "migrations",
)

"""Settings of a process, from the environment. Each has a default that works."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chassis import logs

PREFIX = "INSTA_"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s/\[\]]+):(\d{1,5})")


class SettingError(Exception):
    """A setting has a value that it cannot have; the text names the setting and what it takes."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be set: INSTA_BCRYPT_COST sets `bcrypt_cost`."""

    # The folder of the databases.
    data: Path = Path("var")
    # host:port of gRPC and of /metrics. Empty: the part's own on 127.0.0.1.
    listen: str = ""
    metrics_listen: str = ""
    # Where the other services are when they run apart.
    users_address: str = "127.0.0.1:50052"
    posts_address: str = "127.0.0.1:50053"
    social_address: str = "127.0.0.1:50054"
    # Listen beyond this machine, although nothing is encrypted.
    insecure_plaintext: bool = False
    # Whether reflection is served.
    reflection: bool = True
    # Calls that may be under way at once.
    max_calls: int = 1000
    # How long a stop waits for the calls under way.
    drain_seconds: int = 10
    # The cost of a password's hash: each step doubles the time it takes.
    bcrypt_cost: int = 12
    log_level: str = "info"
    # Log lines for people in place of JSON.
    log_pretty: bool = False


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that an environment holds.

    Raises:
        SettingError: one of them is wrong, or there is none of its name.
    """
    known = {PREFIX + field.name.upper(): field.name for field in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if variable not in known:
            continue
        name = known[variable]
        try:
            values[name] = _PARSERS[name](text)
        except ValueError as wrong:
            raise SettingError(f"{variable}={text}: {wrong}") from None
    return Settings(**values)


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("must name a folder")
    return Path(text)


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if not match or int(match[2]) > 65535:
        raise ValueError("must be HOST:PORT, 127.0.0.1:50051 for instance")
    return text


def _target(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("must be HOST:PORT or a gRPC name such as dns:///users:50052")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("must be true or false")
    return text.lower() in ("true", "1")


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _level(text: str) -> str:
    if text.lower() not in logs.LEVELS:
        raise ValueError(f"must be one of {', '.join(logs.LEVELS)}")
    return text.lower()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "data": _folder,
    "listen": _address,
    "metrics_listen": _address,
    "users_address": _target,
    "posts_address": _target,
    "social_address": _target,
    "insecure_plaintext": _switch,
    "reflection": _switch,
    "max_calls": _number(1, 100_000),
    "drain_seconds": _number(0, 600),
    "bcrypt_cost": _number(4, 16),
    "log_level": _level,
    "log_pretty": _switch,
}

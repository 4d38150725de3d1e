"""Settings of a process, from the environment. Each has a default that works."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from chassis import logs
from chassis.origins import Network

Value = TypeVar("Value")

PREFIX = "INSTA_"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s/\[\]]+):(\d{1,5})")

# The full name of a proto service, and a DNS name.
_CALLER = re.compile(r"([A-Za-z_][\w.]*)=([a-z](?:[a-z0-9.-]*[a-z0-9])?)")

# The name of a bucket, and folders in it.
_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[\w-][\w.-]*)*)/?", re.ASCII)
_WEB_ADDRESS = re.compile(
    r"https?://(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?)(?::(\d{1,5}))?(?:/[\w.~%-]+)*/?",
    re.ASCII,
)

_SHARE = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_DATABASE = re.compile(
    r"postgres(?:ql)?://[^/?#@\s]*(?:@[^/?#@\s]*)?/([^/?#\s]+)(?:\?[\w.]+=[^&\s#]*(?:&[\w.]+=[^&\s#]*)*)?", re.ASCII
)

# Of an address, whatever may be the secret of somebody who has put it there.
_BEFORE_AT = re.compile(r"(?<=//).*@")


class SettingError(Exception):
    """A setting has a value that it cannot have; the text names the setting and what it takes."""


class MediaFolder(NamedTuple):
    """Images are kept in a folder. None: `media` in the folder of the databases."""

    path: Path | None

    def __str__(self) -> str:
        return f"file:{self.path or ''}"


class MediaBucket(NamedTuple):
    """Images are kept in a bucket of S3, under a prefix if that is not empty."""

    name: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.name}" + (f"/{self.prefix}" if self.prefix else "")


@dataclasses.dataclass(frozen=True)
class DatabaseAddress:
    """A PostgreSQL database. As a text it has no password, and no options, among which there may be one.

    Attributes:
        url: With the password.
    """

    url: str = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return _BEFORE_AT.sub("***@", self.url.partition("?")[0])


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


def _file(text: str) -> Path:
    if not text:
        raise ValueError("must name a file")
    return Path(text)


def _callers(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for entry in text.split(","):
        match = _CALLER.fullmatch(entry.strip())
        if not match:
            raise ValueError("must be SERVICE=NAME,..., insta.posts.v1.PostService=reports for instance")
        pairs.append((match[1], match[2]))
    return tuple(pairs)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(entry.strip()) for entry in text.split(","))
    except ValueError:
        raise ValueError("must be networks, 10.0.0.0/8,192.0.2.7 for instance") from None


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


def _share(text: str) -> float:
    if not _SHARE.fullmatch(text) or not 0 <= float(text) <= 1:
        raise ValueError("must be a number from 0 to 1")
    return float(text)


def _media_place(text: str) -> MediaFolder | MediaBucket:
    if text == "file:":
        return MediaFolder(None)
    # What follows two slashes would be a host.
    if text.startswith("file:") and (not text.startswith("file://") or text.startswith("file:///")):
        return MediaFolder(Path(re.sub("^/+", "/", text.removeprefix("file:"))))
    if match := _BUCKET.fullmatch(text):
        return MediaBucket(match[1], match[2].removeprefix("/"))
    raise ValueError("must be file:FOLDER or s3://BUCKET/PREFIX; credentials stand in AWS_ACCESS_KEY_ID and the like")


def _web_address(text: str) -> str:
    match = _WEB_ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[1] or 443) <= 65535:
        raise ValueError("must be an address such as https://images.example.com, without a name or a password")
    return text.rstrip("/")


def _database_address(text: str) -> DatabaseAddress:
    if not _DATABASE.fullmatch(text):
        raise ValueError(
            "must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, with %40 for a @ in the"
            " password and the like"
        )
    return DatabaseAddress(text)


def _level(text: str) -> str:
    if text.lower() not in logs.LEVELS:
        raise ValueError(f"must be one of {', '.join(logs.LEVELS)}")
    return text.lower()


def _setting(default: Value, parse: Callable[[str], Value], meaning: str) -> Value:
    field: Any = dataclasses.field(default=default, metadata={"parse": parse, "meaning": meaning})
    return field  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be set: INSTA_BCRYPT_COST sets `bcrypt_cost`."""

    data: Path = _setting(Path("var"), _folder, "folder of the databases")  # noqa: RUF009 (it makes a field)
    users_database_url: DatabaseAddress | None = _setting(  # noqa: RUF009
        None,
        _database_address,
        "database of the users service, postgresql://USER:PASSWORD@HOST:PORT/DATABASE; without, a file in INSTA_DATA",
    )
    posts_database_url: DatabaseAddress | None = _setting(  # noqa: RUF009
        None, _database_address, "the same of the posts service"
    )
    social_database_url: DatabaseAddress | None = _setting(  # noqa: RUF009
        None, _database_address, "the same of the social service"
    )
    database_connections: int = _setting(
        10, _number(4, 1000), "connections of a process to each PostgreSQL database, at most"
    )
    listen: str = _setting("", _address, "host:port of gRPC; by default the part's own on 127.0.0.1")
    metrics_listen: str = _setting("", _address, "host:port of /metrics; by default the part's own on 127.0.0.1")
    media_listen: str = _setting("127.0.0.1:8080", _address, "host:port of images, over HTTP")
    users_address: str = _setting("127.0.0.1:50052", _target, "where the users service is, apart")
    posts_address: str = _setting("127.0.0.1:50053", _target, "where the posts service is, apart")
    social_address: str = _setting("127.0.0.1:50054", _target, "where the social service is, apart")
    insecure_plaintext: bool = _setting(
        False,
        _switch,
        "run without TLS where it is needed: beyond this machine, where others can read everything, and between parts"
        " that run apart, where whoever reaches the port of one counts as a service",
    )
    peer_tls: Path | None = _setting(  # noqa: RUF009
        None,
        _folder,
        "folder of ca.crt, tls.crt and tls.key, with which a part that runs apart proves itself to the others; of"
        " `insta apart`, the folder of theirs",
    )
    allowed_callers: tuple[tuple[str, str], ...] = _setting(
        (), _callers, "services of your own that may call parts apart: insta.posts.v1.PostService=NAME,..."
    )
    tls_certificate: Path | None = _setting(  # noqa: RUF009
        None, _file, "PEM file of the certificate that clients are shown by the gateway and with images, and its chain"
    )
    tls_key: Path | None = _setting(None, _file, "PEM file of the key of that certificate")  # noqa: RUF009
    trusted_proxies: tuple[Network, ...] = _setting(
        (),
        _networks,
        "networks of the proxies before the gateway, whose X-Forwarded-For names the client: 10.0.0.0/8,...",
    )
    reflection: bool = _setting(True, _switch, "serve reflection")
    max_calls: int = _setting(1000, _number(1, 100_000), "calls that may be under way at once")
    max_wait_milliseconds: int = _setting(
        100, _number(1, 60_000), "calls are refused while those that come in wait longer than this before they begin"
    )
    login_throttle: bool = _setting(True, _switch, "let wrong passwords wait, longer each time")
    mutations_per_minute: int = _setting(
        6000, _number(0, 1_000_000), "changes a minute by one account, per process; 0: any"
    )
    connection_age_seconds: int = _setting(
        300,
        _number(0, 86_400),
        "how long a connection takes calls; then its client makes another, and meets new replicas; 0: for ever",
    )
    drain_seconds: int = _setting(10, _number(0, 600), "how long a stop waits for calls under way")
    bcrypt_cost: int = _setting(12, _number(4, 16), "cost of a password's hash; each step doubles its time")
    media_url: MediaFolder | MediaBucket = _setting(  # noqa: RUF009
        _media_place("file:"),
        _media_place,
        "where images are kept: file:FOLDER, by default media in the folder of the databases, or s3://BUCKET/PREFIX,"
        " with credentials from the environment as AWS tools take them",
    )
    media_s3_endpoint: str = _setting("", _web_address, "address of an S3 that is not Amazon's")
    media_public_url: str = _setting(
        "",
        _web_address,
        "what the addresses of images begin with; without, those in S3 are signed and expire. In S3, make public"
        " what lies there, but not uploads/, which holds what nobody has looked at",
    )
    media_url_seconds: int = _setting(3600, _number(60, 604_800), "how long signed addresses of images are good for")
    trace_ratio: float = _setting(
        0.0,
        _share,
        "share of the calls that come in whose traces are recorded, 0.01 for instance, and sent to"
        " OTEL_EXPORTER_OTLP_ENDPOINT; without, none",
    )
    log_level: str = _setting("info", _level, f"one of {', '.join(logs.LEVELS)}")
    log_pretty: bool = _setting(False, _switch, "log lines for people in place of JSON; true on a terminal")

    @property
    def database_addresses(self) -> Mapping[str, DatabaseAddress]:
        """Where databases on PostgreSQL servers are, by the name of the service. The others are files."""
        urls = {"users": self.users_database_url, "posts": self.posts_database_url, "social": self.social_database_url}
        return {name: address for name, address in urls.items() if address is not None}

    @property
    def media_folder(self) -> Path | None:
        """The folder that images are kept in. None: they are in a bucket."""
        place = self.media_url
        return (place.path or self.data / "media") if isinstance(place, MediaFolder) else None

    @property
    def media_base_url(self) -> str:
        """What the addresses of images in a folder begin with."""
        scheme = "http" if self.tls_certificate is None else "https"
        return self.media_public_url or f"{scheme}://{self.media_listen}/media"


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that an environment holds.

    Raises:
        SettingError: one of them is wrong.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        text = environment.get(PREFIX + field.name.upper())
        if text is None:
            continue
        try:
            values[field.name] = field.metadata["parse"](text)
        except ValueError as wrong:
            # What is no address may hold a password anywhere.
            shown = "***" if field.name.endswith("_database_url") else _BEFORE_AT.sub("***@", text)
            raise SettingError(f"{PREFIX}{field.name.upper()}={shown}: {wrong}") from None
    settings = Settings(**values)
    known: dict[DatabaseAddress, str] = {}
    for name, address in settings.database_addresses.items():
        if (other := known.setdefault(address, name)) != name:
            text = f"is the database of {database_variable(other)}: each service has one of its own"
            raise SettingError(f"{database_variable(name)}={address}: {text}")
    return settings


def database_variable(name: str) -> str:
    """The setting that says where the database of a service is."""
    return f"{PREFIX}{name.upper()}_DATABASE_URL"


def described() -> Iterator[tuple[str, str, str]]:
    """The variable, the default and the meaning of each setting."""
    for field in dataclasses.fields(Settings):
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default or "")
        yield PREFIX + field.name.upper(), default, field.metadata["meaning"]

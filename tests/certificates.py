"""Certificates in tests: how a service proves itself to a part that runs apart, and how others pretend to be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def channel_to(part: str, address: str, folder: Path) -> grpc.aio.Channel:
    """A channel to a part of a suite apart, as the service that the certificate in a folder is for."""
    certificate = (folder / name for name in ("ca.crt", "tls.key", "tls.crt"))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in certificate))
    return trusting_channel(part, address, credentials)


def trusting_channel(part: str, address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """A channel to a server whose certificate is for `part`, whatever its address."""
    options: list[tuple[str, Any]] = [*_OPTIONS, ("grpc.ssl_target_name_override", part)]
    return grpc.aio.secure_channel(address, credentials, options=options)

"""Keyset pages: an opaque token says after which row the next page begins.

A token is bound to the list, to its arguments and to its caller by a MAC: one that was made up, or taken from another
list, is refused. Rows that come and go between two pages neither repeat a row nor skip one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf import message

from chassis import errors
from chassis.call import caller

Row = TypeVar("Row")

DEFAULT_SIZE = 20
# Above every id: the first page of a list that begins with the newest row.
NEWEST = 2**63 - 1
_MAC_SIZE = 12


class Pager:
    """Makes and checks the page tokens of one service.

    Args:
        key: A secret of at least 16 bytes, the same in every process of the service and across restarts.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def size(self, request: message.Message) -> int:
        """How many rows the page holds at most."""
        return request.page_size or DEFAULT_SIZE  # type: ignore[attr-defined]

    def start(self, request: message.Message) -> int:
        """The id below which the page begins.

        Raises:
            InvalidArgument: the token is not one of this list, these arguments and this caller.
        """
        token: str = request.page_token  # type: ignore[attr-defined]
        if not token:
            return NEWEST
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raise _invalid_token() from None
        packed, mac = raw[:8], raw[8:]
        if _encoded(raw) != token:
            # The decoder passes over characters that are none of its own: a token has one spelling.
            raise _invalid_token()
        if not hmac.compare_digest(mac, self._mac(packed, request)):
            raise _invalid_token()
        (start,) = struct.unpack(">q", packed)
        return int(start)

    def page(
        self, request: message.Message, rows: Sequence[Row], row_id: Callable[[Row], int]
    ) -> tuple[list[Row], str]:
        """The rows of a page and the token of the next.

        Args:
            request: What asked for the page.
            rows: Up to `size(request) + 1` rows: the one too many tells that there is a next page.
            row_id: The id by which the list is ordered.
        """
        size = self.size(request)
        page = list(rows[:size])
        if len(rows) <= size:
            return page, ""
        return page, self.token(request, row_id(page[-1]))

    def token(self, request: message.Message, last_id: int) -> str:
        """The token of the page that begins after a row: of one that ends there sooner than `page` says."""
        packed = struct.pack(">q", last_id)
        return _encoded(packed + self._mac(packed, request))

    def _mac(self, packed: bytes, request: message.Message) -> bytes:
        arguments = type(request)()
        arguments.CopyFrom(request)
        arguments.ClearField("page_token")
        arguments.ClearField("page_size")
        subject = "\0".join((type(request).DESCRIPTOR.full_name, str(caller().user_id)))
        content = packed + subject.encode() + b"\0" + arguments.SerializeToString(deterministic=True)
        return hashlib.blake2b(content, key=self._key, digest_size=_MAC_SIZE).digest()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _invalid_token() -> errors.InvalidArgument:
    return errors.invalid_field(
        "page_token",
        "must be empty or the next_page_token of the page before, asked for by the same caller with the same arguments",
        errors.Reason.REASON_INVALID_PAGE_TOKEN,
    )

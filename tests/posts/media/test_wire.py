"""What workers answer is believed only as far as it can be true."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.posts.media import wire
from services.posts.media.images import process
from services.posts.media.refusal import ImageRefused, Reason
from services.posts.media.wire import Malformed
from tests.posts.media.drawing import encoded, picture

_PROCESSED = process(encoded(picture(700, 400), "PNG"), "image/png")
_ANSWER = wire.made(_PROCESSED)
_HEADER_END = 4 + struct.unpack(">I", _ANSWER[:4])[0]
_FIELDS: dict[str, Any] = json.loads(_ANSWER[4:_HEADER_END])
_DATA = _ANSWER[_HEADER_END:]


def _reader(data: bytes) -> Callable[[int], bytes]:
    file = io.BytesIO(data)

    def read(count: int) -> bytes:
        assert 0 <= count <= 4 * 25_000_000
        found = file.read(count)
        if len(found) < count:
            raise EOFError
        return found

    return read


def _framed(header: bytes, data: bytes = b"") -> Callable[[int], bytes]:
    return _reader(struct.pack(">I", len(header)) + header + data)


def _answer(fields: Any, data: bytes = _DATA) -> Callable[[int], bytes]:
    return _framed(json.dumps(fields).encode(), data)


def test_what_is_said_is_understood() -> None:
    request = wire.Request(b"data", "image/png")
    refusal = ImageRefused(Reason.DAMAGED, "The file is damaged: save it again.")

    assert wire.read_request(_reader(wire.request_header(4, request.declared) + request.data)) == request
    assert wire.read_answer(_reader(_ANSWER)) == _PROCESSED
    with pytest.raises(ImageRefused) as caught:
        wire.read_answer(_reader(wire.refused(refusal)))
    assert (caught.value.reason, caught.value.text) == (refusal.reason, refusal.text)
    with pytest.raises(MemoryError):
        wire.read_answer(_reader(wire.out_of_memory()))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 4000,
        b"1" * 4096,
        b'{"failed": "time"}',
        b'{"failed": "memory", "more": 1}',
        b'{"reason": "DAMAGED"}',
        b'{"reason": "OTHER", "text": "It is."}',
        b'{"reason": ["DAMAGED"], "text": "It is."}',
        b'{"reason": {}, "text": "It is."}',
        b'{"reason": "DAMAGED", "text": ""}',
        b'{"reason": "DAMAGED", "text": 5}',
        b'{"reason": "DAMAGED", "text": "It is.\\nERROR all is lost"}',
        b'{"reason": "DAMAGED", "text": "\\ud800"}',
        b'{"reason": "DAMAGED", "text": "' + b"a" * 501 + b'"}',
        b'{"reason": "DAMAGED", "text": "It is.", "more": 1}',
    ],
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(Malformed):
        wire.read_answer(_framed(header))


def test_a_header_that_is_too_long_is_not_read() -> None:
    with pytest.raises(Malformed):
        wire.read_answer(_reader(struct.pack(">I", 4097)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("width", value) for value in (0, -1, 25_000_001, 699.0, "700", None, True, [700], 1e999, 639)),
        *(("height", value) for value in (0, -1, 35_715, float("nan"), "400", 364)),
        *(("blurhash", value) for value in ("", "short", "<script>alert(1)</script>", "a" * 101, 5, "abcdef\n")),
        ("more", 1),
    ],
)
def test_a_field_that_cannot_be_true_is_refused(field: str, value: Any) -> None:
    with pytest.raises(Malformed):
        wire.read_answer(_answer({**_FIELDS, field: value}))


@pytest.mark.parametrize(
    ("index", "value"),
    [
        *((0, value) for value in (0, -1, 321, 1081, True, 320.0, None)),
        *((1, value) for value in (0, -1, 401, "183")),
        *((2, value) for value in ("image/jpeg", "image/png", "text/html", "", 5, None, ["image/webp"])),
        *((3, value) for value in (0, -1, 2**40, 4 * 320 * 183 + 4097, 1.5, True, None)),
    ],
)
def test_a_variant_that_cannot_be_true_is_refused(index: int, value: Any) -> None:
    first, *others = _FIELDS["variants"]
    changed = [*first[:index], value, *first[index + 1 :]]
    with pytest.raises(Malformed):
        wire.read_answer(_answer({**_FIELDS, "variants": [changed, *others]}))


def _variants(*sides: int) -> list[list[Any]]:
    return [[side, side, content_type, 1] for side in sides for content_type in ("image/webp", "image/jpeg")]


@pytest.mark.parametrize(
    ("variants", "why"),
    [
        *((value, "no variants, or too many") for value in ([], {}, None, "variants", _variants(1, 2, 3, 4))),
        ([[]], "no variant$"),
        (_variants(1, 1081), "out of range"),
        *((value, "another order") for value in (_variants(2, 1), _variants(1, 1, 2), _variants(1, 2, 1))),
        *((value, "another order") for value in (_variants(1, 2)[:3], _variants(1, 2)[1:], _variants(1, 2)[::-1])),
    ],
)
def test_variants_that_cannot_be_all_are_refused_before_they_are_read(variants: Any, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        wire.read_answer(_answer({**_FIELDS, "width": 2000, "height": 2000, "variants": variants}, b""))


@pytest.mark.parametrize("content", [b"<script>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_a_variant_in_another_format_than_it_says_is_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        wire.read_answer(_answer(_FIELDS, content + _DATA[len(content) :]))


def test_an_answer_that_ends_early_is_seen() -> None:
    for end in (0, 3, 4, _HEADER_END - 1, _HEADER_END, len(_ANSWER) - 1):
        with pytest.raises(EOFError):
            wire.read_answer(_reader(_ANSWER[:end]))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60).map(_reader)
    | _VALUES.map(_answer)
    | st.fixed_dictionaries({name: _VALUES | st.just(value) for name, value in _FIELDS.items()}).map(_answer)
    | st.fixed_dictionaries({"reason": _VALUES | st.just("DAMAGED"), "text": _VALUES}).map(_answer)
)
def test_whatever_is_answered_is_understood_or_refused(read: Callable[[int], bytes]) -> None:
    with suppress(Malformed, EOFError, ImageRefused):
        assert wire.read_answer(read) == _PROCESSED

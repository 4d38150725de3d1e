"""Calls leave nothing open behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.mixture import KINDS, Mixture
from tests.people import People, until
from tests.resources import resources
from tests.running import running

_FIRST, _MORE = 5, 100
_AT_ONCE = 8


async def test_after_many_calls_of_each_kind_as_much_is_open_as_after_a_few(tmp_path: Path) -> None:
    with running(
        "together", tmp_path / "var", superuser=False, INSTA_LOG_LEVEL="info", INSTA_DATABASE_CONNECTIONS="4"
    ) as suite:
        assert suite.process is not None
        pid = suite.process.pid
        people = People(suite.address)
        pats = [await people.join() for _ in range(4)]
        mixture = Mixture(pats, [(await pat.post()).id for pat in pats])

        await _call(mixture, _FIRST)
        before = resources([pid])
        await _call(mixture, _MORE)

        async def grown() -> tuple[bool, bool]:
            now = resources([pid])
            return now.threads > before.threads, now.descriptors > before.descriptors

        await until(grown, (False, False))
        await people.channel.close()


async def _call(mixture: Mixture, times: int) -> None:
    """Make so many calls of each kind, some at once."""
    for _ in range(times):
        for start in range(0, len(KINDS), _AT_ONCE):
            await asyncio.gather(*map(mixture.call, KINDS[start : start + _AT_ONCE]))

"""A rolling restart: each part is stopped in order and started again, and nobody notices."""

from __future__ import annotations

from pathlib import Path

from tests.running import running
from tests.suite.rolling import PARTS, roll

GRACE_SECONDS = 10


# 20 of them in tests/soak.
async def test_clients_with_the_service_config_do_not_notice_a_rolling_restart(tmp_path: Path) -> None:
    with running("apart", tmp_path, superuser=False, INSTA_DRAIN_SECONDS=str(GRACE_SECONDS)) as suite:
        rolled = await roll(suite, times=1, writes_between=50)

    assert [(restart.part, restart.exit_code) for restart in rolled.restarts] == [(part, 0) for part in PARTS]
    assert max(restart.drained for restart in rolled.restarts) < GRACE_SECONDS
    assert rolled.clients.calls

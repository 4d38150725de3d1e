"""The audit log: who did what to whom, from where. Its lines say `"audit": true` and are written at every log level."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from chassis.call import origin
from chassis.store import after_commit

_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET), audit=True)


def record(action: str, **details: Any) -> None:
    """Write that something was done; of a change, once it is committed. The log adds the caller.

    Details never name a secret.

    Args:
        action: What was done: login, for instance.
        details: Whom it was done to (`user_id`), and what else an auditor asks for.
    """
    came_from = origin()
    line = {"address": came_from.address, "user_agent": came_from.user_agent, **details}
    after_commit(lambda: _log.info(action, **line))

"""Structured logs: one line an event, as JSON or for people, with the trace id of the call that it belongs to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

LEVELS = ("debug", "info", "warning", "error")


class _StandardError:
    """Standard error, where it can be written to.

    A line that cannot be (its disk is full, whoever read it is gone) must fail nothing that it tells of.
    """

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def get(name: str) -> Any:
    """The logger of a module."""
    return structlog.get_logger(module=name)


def configure(level: str, pretty: bool, context: Callable[[], dict[str, Any]] = dict) -> None:
    """Send the lines of this process to standard error.

    Args:
        level: The least severe level that is written, one of `LEVELS`.
        pretty: For people, in place of JSON.
        context: Answers what every line says besides its own, of the call under way for instance.
    """

    def add_context(_logger: Any, _method: str, event: Any) -> Any:
        return {**context(), **event}

    renderer = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if pretty else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            add_context,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )

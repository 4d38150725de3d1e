"""Why an image is refused."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """What is wrong with an image."""

    EMPTY = "EMPTY"
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"
    ANOTHER_FORMAT = "ANOTHER_FORMAT"
    TOO_MANY_PIXELS = "TOO_MANY_PIXELS"
    TOO_MANY_SCANS = "TOO_MANY_SCANS"
    ANIMATED = "ANIMATED"
    DAMAGED = "DAMAGED"


class ImageRefused(Exception):
    """An image cannot be taken, for a reason that the person who uploads it may know.

    Args:
        reason: What is wrong.
        text: A sentence for that person, naming what to change.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def damaged(format_name: str) -> ImageRefused:
    """The bytes end too early, or cannot be decoded."""
    return ImageRefused(
        Reason.DAMAGED, f"The {format_name} file is damaged or incomplete: save the image again, and upload all of it."
    )

"""What a machine of today carries of a day of many people, and what so many people would take."""

from benchmarks.capacity.part import NAME, run

__all__ = ["NAME", "run"]

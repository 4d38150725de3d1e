"""Puts tables of the last benchmark into a document: `python -m benchmarks.document docs/scale.md`.

Where they go the document says: between `<!-- table: PART, TITLE -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sides import BUILD

_PLACE = re.compile(r"(<!-- table: ([\w-]+), (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(document: str, results: Mapping[str, Any]) -> str:
    """A document with the tables of results in their places.

    Raises:
        LookupError: a table that it names is not among the results.
    """

    def table(place: re.Match[str]) -> str:
        begin, part, title, end = place.groups()
        for rows in results.get(part, {}).get("tables", []):
            if rows["title"] == title:
                return begin + markdown(rows["headings"], rows["rows"]) + end
        raise LookupError(f"there is no table {title!r} of the part {part}: run make bench PARTS={part}")

    return _PLACE.sub(table, document)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column to the left and numbers to the right."""
    numbers = [all(row[place][:1].isdigit() or row[place] == "-" for row in rows) for place in range(len(headings))]
    rule = ["---:" if each else "---" for each in numbers]
    return "".join(f"| {' | '.join(row)} |\n" for row in ([*headings], rule, *rows))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(filled(path.read_text(), json.loads((BUILD / "results.json").read_text())))

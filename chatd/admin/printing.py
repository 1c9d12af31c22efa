"""Output for people, as tables and lines, or for programs, as JSON."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

Record = Mapping[str, Any]

# What JSON leaves as it is although terminals act on it: C1 controls, of which some begin a
# sequence, line ends, and what changes the direction of the text beside it.
_CONTROLS: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def print_json(record: Record) -> None:
    """Print an object on one line: control and bidirectional characters escaped, and all that is
    not ASCII where the locale has not all of it."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(record, ensure_ascii=not is_unicode)
    sys.stdout.write(escape_json(text) + "\n")


def escape_json(text: str) -> str:
    """JSON with all control and bidirectional characters escaped."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below their heading; control characters are replaced."""
    texts = [list(columns), *([printable(each) for each in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def print_fields(record: Record) -> None:
    """Print a name and a value on each line."""
    width = max(map(len, record))
    for name, value in record.items():
        label = name.replace("_", " ")
        sys.stdout.write(f"{label:<{width}}  {printable(value)}\n")


def printable(value: object) -> str:
    """A value for people; a dash stands for none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "".join(
        "\ufffd" if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") else each
        for each in str(value)
    )


def timestamp(microseconds: int | None) -> str | None:
    """A time as the API gives it: in UTC, to the second."""
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""PostgreSQL array literals, which the server parses faster than a list of constants."""

from __future__ import annotations

from collections.abc import Iterable


def array(values: Iterable[int | bytes | None]) -> str:
    """A literal for `bigint[]` or `bytea[]`."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: int | bytes | None) -> str:
    if value is None:
        return "NULL"
    return f'"\\\\x{value.hex()}"' if isinstance(value, bytes) else str(value)


def booleans(values: Iterable[bool]) -> str:
    """A literal for `boolean[]`."""
    return "{" + ",".join(["t" if value else "f" for value in values]) + "}"


def texts(values: Iterable[str | None]) -> str:
    """A literal for `text[]`; pass it as a parameter, it is not escaped for use in SQL."""
    return "{" + ",".join([_quoted(value) for value in values]) + "}"


def _quoted(text: str | None) -> str:
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

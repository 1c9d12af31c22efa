"""Statements without the NOTIFYs that they send, for a store whose commits a bus announces."""

from __future__ import annotations

import re
from functools import cache
from typing import Final, TypeVar

from chatd.store.statements import Statement

T = TypeVar("T")

# Its arguments contain at most one further level of parentheses.
_NOTIFY: Final = re.compile(r"pg_notify\((?:[^()]|\([^()]*\))*\)")


@cache
def silent(sql: str) -> str:
    """The same statement, which notifies nobody; it has as many rows and columns."""
    return _NOTIFY.sub("NULL::text", sql)


def silenced(statement: Statement[T]) -> Statement[T]:
    """The same for a statement with its parameters."""
    return statement._replace(sql=silent(statement.sql))

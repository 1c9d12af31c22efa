"""Running statements where the shards are by a function, for roles that may not use shards.

Citus lets only the owner of a table lock its shards, and whoever may not do that could lose what is
written while a shard moves. For other roles a function of the owner runs the statements. It is
distributed like the tables, so Citus delegates a call from any server to the one that has the lane.
The statements, and the guard in front of them, are those that the owner runs directly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from psycopg2.extensions import adapt

from chatd.errors import StartError
from chatd.postgres.array_literals import texts
from chatd.postgres.connection import Rows
from chatd.store.sharded.schema import FUNCTION, SIGNATURE
from chatd.store.sharded.shards import Lane

MAY: Final = f"""
SELECT pg_has_role(relowner, 'USAGE'),
    coalesce(has_function_privilege(to_regprocedure('{SIGNATURE}'), 'EXECUTE'), false), current_user
FROM pg_class WHERE oid = 'message'::regclass
"""
"""Whether the role may lock shards, as Citus decides it; whether it may call the function; which
role it is.
"""

# Citus delegates only calls whose arguments are constants.
_CALL: Final = f"SELECT {FUNCTION}(%s::bigint, %s::text[])"
_LITERAL: Final = re.compile(r"'[^']*'")
_PARENTHESES: Final = re.compile(r"\([^()]*\)")
_VERB: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")
_BYTES: Final = frozenset({"bytea", "digest", "fingerprint"})
"""Names of columns of that type, which JSON does not tell from text."""


def is_needed(rows: Rows) -> bool:
    """Whether the role of `MAY` has to use the function; raises `StartError` if it may not."""
    [(may_lock, may_call, role)] = rows
    if not may_lock and not may_call:
        raise StartError(
            f"the role {role} neither owns the tables of the database, which are sharded, nor may"
            f" it execute {FUNCTION}: see docs/scale.md"
        )
    return not may_lock


def call(lane: Lane, sql: str, parameters: Any) -> tuple[str, Any]:
    """The statement and its parameters that run those in a lane; see `rows_of`.

    If there are several statements, they have named parameters, or none.
    """
    parts = _parts(lane.guard + lane.statement(sql))
    # The function runs nothing that returns no rows.
    returning = [each if _returns_rows(each) else f"{each} RETURNING 1" for each in parts]
    return _CALL, (str(lane.key), _Statements(returning, parameters))


def rows_of(sql: str, found: Rows) -> Rows:
    """The rows that the statement would have returned by itself."""
    if not _returns_rows(_parts(sql)[-1]):
        return []
    return [
        tuple([_value(name, value) for name, value in row])
        for row in json.loads(found[0][0], object_pairs_hook=list)
    ]


@cache
def _parts(sql: str) -> tuple[str, ...]:
    """The statements of a text."""
    return tuple([each for each in sql.split(";") if each.strip()])


@cache
def _returns_rows(statement: str) -> bool:
    outermost = _LITERAL.sub("", statement)
    while (shorter := _PARENTHESES.sub("", outermost)) != outermost:
        outermost = shorter
    verb = _VERB.search(outermost)
    return (verb is not None and verb[0] == "SELECT") or "RETURNING" in outermost


def _value(name: str, value: Any) -> Any:
    # PostgreSQL writes \x and hexadecimal digits.
    return bytes.fromhex(value[2:]) if name in _BYTES and value is not None else value


class _Statements:
    """The texts of statements with their parameters, as a parameter of `_CALL` for psycopg2."""

    def __init__(self, parts: list[str], parameters: Any) -> None:
        self._parts = parts
        self._parameters = parameters
        self._connection: Any = None

    def __conform__(self, protocol: object) -> _Statements:
        """How psycopg2 asks for an adapter."""
        return self

    def prepare(self, connection: Any) -> None:
        """Called by psycopg2 with its connection, which knows how to quote."""
        self._connection = connection

    def getquoted(self) -> bytes:
        """The literal."""
        cursor = self._connection.cursor()
        merged = []
        for part in self._parts:
            # Only the last statement has parameters that are not named.
            used = self._parameters
            if not isinstance(used, Mapping) and part is not self._parts[-1]:
                used = None
            merged.append(cursor.mogrify(part, used).decode("utf-8"))
        quoted = adapt(texts(merged))
        quoted.prepare(self._connection)
        literal: bytes = quoted.getquoted()
        return literal

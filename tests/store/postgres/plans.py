"""Plans of statements, made as those of prepared statements are."""

from __future__ import annotations

from typing import Any

from chatd.postgres import connection
from chatd.postgres.prepared import prepared
from tests.postgres_server import rows


def plan(db: Any, sql: str, parameters: Any) -> list[str]:
    """The lines of the plan for a statement with parameters; tables should be analysed before."""
    rows(db, connection._PLANNING)
    statement = prepared(sql)
    with db.cursor() as cursor:
        cursor.execute(statement.prepare)
        cursor.execute(f"EXPLAIN {statement.execute}", parameters)
        return [line for [line] in cursor.fetchall()]

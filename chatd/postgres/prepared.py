"""Prepared statements: the server plans a statement once a connection, not once a call.

Planning takes as long as carrying out a batch of a few messages does.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import Final, NamedTuple

_PARAMETER: Final = re.compile(r"%(?:\((\w+)\))?s|%%")


class Prepared(NamedTuple):
    """What prepares a statement, and what executes it with the parameters it had before."""

    prepare: str
    execute: str


@cache
def prepared(sql: str) -> Prepared:
    """For a statement with psycopg2's parameters, all `%s` or all `%(name)s`.

    The server tells their types by the casts around them. The name is made of the text, so that
    one name never means two statements.
    """
    given: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        parameter = match[0]
        if parameter == "%%":
            return "%"
        if match[1] is None or parameter not in given:
            given.append(parameter)
            return f"${len(given)}"
        return f"${given.index(parameter) + 1}"

    text = _PARAMETER.sub(numbered, sql)
    name = "chatd_" + hashlib.sha256(sql.encode()).hexdigest()[:16]
    arguments = f" ({', '.join(given)})" if given else ""
    return Prepared(f"PREPARE {name} AS {text}", f"EXECUTE {name}{arguments}")

"""Prepared statements, which the server plans once per connection instead of once per call.

Planning takes as long as executing a small batch does.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import Final, NamedTuple

_PARAMETER: Final = re.compile(r"%(?:\((\w+)\))?s|%%")


class Prepared(NamedTuple):
    """The PREPARE and EXECUTE of a statement; EXECUTE takes the statement's parameters."""

    prepare: str
    execute: str


@cache
def prepared(sql: str) -> Prepared:
    """Convert a statement with psycopg2 parameters, either all `%s` or all `%(name)s`.

    The server infers the types of parameters from the casts around them. The name is a hash of
    the text, so it never stands for two statements.
    """
    arguments: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        parameter = match[0]
        if parameter == "%%":
            return "%"
        if match[1] is None or parameter not in arguments:
            arguments.append(parameter)
            return f"${len(arguments)}"
        return f"${arguments.index(parameter) + 1}"

    text = _PARAMETER.sub(numbered, sql)
    name = "chatd_" + hashlib.sha256(sql.encode()).hexdigest()[:16]
    listed = f" ({', '.join(arguments)})" if arguments else ""
    return Prepared(f"PREPARE {name} AS {text}", f"EXECUTE {name}{listed}")

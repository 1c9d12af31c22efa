"""Conversion to prepared statements."""

from __future__ import annotations

import pytest

from chatd.postgres.prepared import prepared


@pytest.mark.parametrize(
    ("sql", "text", "arguments"),
    [
        ("SELECT 1", "SELECT 1", ""),
        ("SELECT %s::int, %s::int", "SELECT $1::int, $2::int", " (%s, %s)"),
        ("f(%(b)s, %(a)s || %(b)s)", "f($1, $2 || $1)", " (%(b)s, %(a)s)"),
        ("a LIKE 'x%%' AND b = %s", "a LIKE 'x%' AND b = $1", " (%s)"),
    ],
)
def test_parameters_are_numbered(sql: str, text: str, arguments: str) -> None:
    statement = prepared(sql)
    words, name, _, rest = statement.prepare.split(" ", 3)
    assert (words, rest) == ("PREPARE", text)
    assert statement.execute == f"EXECUTE {name}{arguments}"


def test_each_statement_has_its_own_name() -> None:
    assert prepared("SELECT 1").execute != prepared("SELECT 2").execute
    assert prepared("SELECT 1") is prepared("SELECT 1")

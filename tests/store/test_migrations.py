"""Discovery of schema migrations."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatd.errors import StartError
from chatd.store.migrations import Migration, migrations, pending

A, B, C = (Migration(number, f"00{number}_x.sql", "") for number in (1, 2, 3))


def folder(path: Path, *names: str) -> Path:
    """Write schema files that contain their own names."""
    for name in names:
        (path / name).write_text(f"-- {name} é\n", "utf-8")
    return path


def test_the_schema_is_packaged() -> None:
    known = migrations("sqlite")
    assert [each.version for each in known] == list(range(1, len(known) + 1))
    assert known[0].name == "001_initial.sql"
    assert "CREATE TABLE message" in known[0].sql


def test_files_are_ordered_by_number(tmp_path: Path) -> None:
    found = migrations("sqlite", folder(tmp_path, "003_c.sql", "001_a.sql", "002_b_2.sql"))
    assert [(each.version, each.name) for each in found] == [
        (1, "001_a.sql"),
        (2, "002_b_2.sql"),
        (3, "003_c.sql"),
    ]
    assert found[1].sql == "-- 002_b_2.sql é\n"


def test_other_files_are_ignored(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        "001_a.sql",
        "002_b.sql~",
        ".002_b.sql",
        "002_B.sql",
        "2_b.sql",
        "002_b.txt",
        "0002_b.sql",
        "README.md",
    )
    assert [each.name for each in migrations("sqlite", path)] == ["001_a.sql"]


@pytest.mark.parametrize(
    "names",
    [
        ["001_a.sql", "003_c.sql"],
        ["002_b.sql"],
        ["000_a.sql", "001_b.sql"],
        ["001_a.sql", "001_b.sql"],
        ["001_a.sql", "002_b.sql", "002_c.sql"],
    ],
)
def test_missing_and_duplicate_numbers_are_rejected(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match="not numbered"):
        migrations("sqlite", folder(tmp_path, *names))


def test_pending_migrations_depend_on_the_version() -> None:
    assert pending([A, B, C], 0, "x") == [A, B, C]
    assert pending([A, B, C], 1, "x") == [B, C]
    assert pending([A, B, C], 3, "x") == []


def test_a_newer_database_is_refused_with_one_line() -> None:
    with pytest.raises(StartError) as refusal:
        pending([A, B], 3, "the database chatd.db")
    line = str(refusal.value)
    assert line.startswith("the database chatd.db has schema version 3")
    assert "versions up to 2" in line
    assert "\n" not in line

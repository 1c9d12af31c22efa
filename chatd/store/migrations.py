"""Schema migrations: files `schema/<dialect>/NNN_name.sql`, applied in order, never edited."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from msgspec import Struct

from chatd.errors import StartError

_NAME: Final = re.compile(r"([0-9]{3})_[a-z0-9_]+\.sql")


class Migration(Struct, frozen=True):
    """One step of a schema: the resulting version and the SQL that leads to it."""

    version: int
    name: str
    sql: str


def migrations(dialect: str, folder: Traversable | None = None) -> list[Migration]:
    """All migrations of a dialect (`sqlite`, `postgres`), first to last.

    `folder` replaces the packaged folder. The numbers must be 1, 2, 3 ... without gaps, otherwise
    a database could skip a step forever.
    """
    return list(_packaged(dialect)) if folder is None else _read(dialect, folder)


@cache
def _packaged(dialect: str) -> tuple[Migration, ...]:
    return tuple(_read(dialect, files(__package__).joinpath("schema", dialect)))


def _read(dialect: str, folder: Traversable) -> list[Migration]:
    found = []
    for entry in folder.iterdir():
        match = _NAME.fullmatch(entry.name)
        if match is not None:
            found.append(Migration(int(match[1]), entry.name, entry.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations of {dialect} are not numbered 1, 2, 3 ...")
    return found


UPGRADE: Final = "run chatd db upgrade, or start the daemon, which does the same"


def pending(
    known: list[Migration], version: int, where: str, *, upgrade: bool = True
) -> list[Migration]:
    """The migrations that a database at `version` lacks.

    Raises `StartError` if it is newer, or lacks any and `upgrade` is False.
    """
    newest = known[-1].version
    if version > newest:
        raise StartError(
            f"{where} has schema version {version}, this chatd knows versions up to {newest}: "
            "run the chatd that made it, or a newer one"
        )
    if version < newest and not upgrade:
        raise StartError(
            f"{where} has schema version {version}, this chatd needs {newest}: {UPGRADE}"
        )
    return known[version:]

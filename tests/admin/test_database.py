"""`chatd db`, on every database, with a daemon and without."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.compose.administration import compose_administration
from chatd.config import ConfigError
from chatd.maintenance import MaintenanceError
from tests.admin.commands import Commands, daemon_of
from tests.contracts.helpers import add_accounts, send_many
from tests.doubles import new_database
from tests.postgres_server import binaries


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the server's release come first."""
    monkeypatch.setenv("PATH", f"{binaries()}{os.pathsep}{os.environ['PATH']}")


@ensureDeferred
async def test_a_database_is_copied_and_checked(commands: Commands, tmp_path: Path) -> None:
    [status] = await commands.json("db", "status")
    assert status["schema"] == status["schema_needed"]
    assert (status["accounts"], status["messages"], status["oldest_message_at"]) == (0, 0, None)
    assert status["backed_up_at"] is None
    target = tmp_path / "copy"
    assert await commands.json("db", "backup", str(target)) == [{"backup": str(target)}]
    assert target.stat().st_mode & 0o777 == 0o600
    [status] = await commands.json("db", "status")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", status["backed_up_at"])
    assert await commands.json("db", "check") == [{"consistent": True, "found": []}]
    with pytest.raises(MaintenanceError, match="exists already"):
        await commands.run("db", "backup", str(target))


@pytest.fixture
def stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands on a SQLite database that nobody has open."""
    path = tmp_path / "chatd.db"
    path.write_bytes(new_database())
    return Commands(f"sqlite:{path}", capsys)


@ensureDeferred
async def test_a_restore_drill(stopped: Commands, tmp_path: Path) -> None:
    from twisted.internet import reactor

    store, _ = await compose_administration(stopped.settings, reactor)
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 3)
    await store.close()
    copy = tmp_path / "copy.db"
    assert await stopped.run("db", "backup", str(copy)) == f"The copy is {copy}.\n"
    assert await stopped.run("db", "check") == "The database is consistent.\n"
    async with daemon_of(stopped.settings):
        with pytest.raises(MaintenanceError, match="stop it first"):
            await stopped.run("db", "restore", str(copy))
        with pytest.raises(MaintenanceError, match="stop it first"):
            await stopped.run("db", "vacuum")
        assert "is open in another chatd" in await stopped.fail(1, "db", "upgrade")
    [restored] = await stopped.json("db", "restore", str(copy))
    assert restored["kept"].endswith(".replaced")
    status = await stopped.run("db", "status")
    assert "messages           3\n" in status
    assert "free bytes         0 B\n" in status
    assert "KB\n" in status
    [vacuumed] = await stopped.json("db", "vacuum")
    assert vacuumed["bytes"] <= vacuumed["bytes_before"]
    assert "KB; it had " in await stopped.run("db", "vacuum")


@ensureDeferred
async def test_a_folder_keeps_the_newest_copies(stopped: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    old = ("chatd-20200101T000000Z.copy", "chatd-20210101T000000Z.copy")
    # Killed processes have left the latter behind.
    for name in (*old, "notes", "notes.part", f"{old[0]}.part"):
        (folder / name).touch()
    [copied] = await stopped.json("db", "backup", str(folder), "--keep", "2")
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == [old[1], os.path.basename(copied["backup"]), "notes", "notes.part"]
    assert "is none" in await stopped.fail(1, "db", "backup", str(tmp_path / "file"), "--keep", "2")


@ensureDeferred
async def test_damage_has_a_status_of_its_own(
    stopped: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    db = sqlite3.connect(stopped.settings.db.removeprefix("sqlite:"))
    db.execute("INSERT INTO inbox VALUES (1, 2, 3, 0, 0, 0, 0)")
    db.commit()
    db.close()
    assert await stopped.fail(5, "db", "check") == "the database is not consistent"
    assert "inbox 1 has no account\n" in capsys.readouterr().out


@ensureDeferred
async def test_a_database_is_created_and_upgraded_by_one_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.db"
    commands = Commands(f"sqlite:{path}", capsys)
    with pytest.raises(MaintenanceError, match="there is no database"):
        await commands.run("db", "status")
    assert "has schema version" in await commands.run("db", "upgrade")
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE account DROP COLUMN disabled_at")
    for column in ("removed_seq", "removed_at", "text_bytes"):
        db.execute(f"ALTER TABLE inbox DROP COLUMN {column}")
    db.execute("ALTER TABLE history DROP COLUMN backed_up_at")
    db.execute("DROP TABLE erasure")
    db.execute("PRAGMA user_version = 7")
    db.close()
    async with daemon_of(commands.settings):
        assert f"process {os.getpid()}" in await commands.fail(1, "db", "upgrade")
    await commands.run("db", "upgrade")
    assert len(list(tmp_path.glob("new.db.v7.*.backup"))) == 1
    assert await commands.json("db", "check") == [{"consistent": True, "found": []}]


@ensureDeferred
async def test_two_upgrades_at_once_are_one_on_postgresql(
    postgres_empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(postgres_empty, capsys)
    await gatherResults([Deferred.fromCoroutine(commands.run("db", "upgrade")) for _ in range(2)])
    assert await commands.json("db", "check") == [{"consistent": True, "found": []}]


@ensureDeferred
async def test_an_unknown_database_is_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="neither sqlite:PATH nor"):
        await Commands("nonsense", capsys).run("db", "status")

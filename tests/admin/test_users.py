"""`chatd user` and `chatd token`, on every database, with a daemon and without."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from chatd.admin import access, passwords
from chatd.compose.administration import compose_administration
from chatd.compose.databases import admin_socket_path
from tests.admin.commands import Commands, daemon_of
from tests.doubles import cheap_hasher, new_database

TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "owasp_hasher", cheap_hasher)


async def add(commands: Commands, name: str) -> dict[str, object]:
    [account] = await commands.json(
        "user", "add", name, "--email", f"{name}@example.org", "--generate-password"
    )
    return account


@ensureDeferred
async def test_an_account_from_its_beginning_to_its_end(commands: Commands) -> None:
    ann, bob = await add(commands, "ann"), await add(commands, "bob")
    password = ann.pop("password")
    assert isinstance(password, str)
    assert len(password) == 24
    assert bob.pop("password") != password
    assert TIME.fullmatch(str(ann.pop("date_joined")))
    assert ann == {
        "id": 1,
        "username": "ann",
        "email": "ann@example.org",
        "last_seen_at": None,
        "messages": 0,
        "bytes": 0,
        "tokens": 0,
        "disabled_at": None,
    }
    assert [each["username"] for each in await commands.json("user", "list")] == ["ann", "bob"]
    assert (await commands.json("user", "show", "ANN"))[0]["id"] == 1
    [disabled] = await commands.json("user", "disable", "ann")
    assert TIME.fullmatch(str(disabled["disabled_at"]))
    [enabled] = await commands.json("user", "enable", "ann")
    assert enabled["disabled_at"] is None
    [changed] = await commands.json("user", "passwd", "ann", "--generate-password")
    assert changed["password"] != password
    deleted = await commands.json("user", "delete", "ann", "--yes")
    assert deleted == [{"username": "ann", "deleted": True}]
    assert [each["username"] for each in await commands.json("user", "list")] == ["bob"]
    assert "was somebody's" in await commands.fail(
        4, "user", "add", "ann", "--email", "a@example.org", "--generate-password"
    )
    assert "no user of the name ann" in await commands.fail(3, "user", "show", "ann")


@ensureDeferred
async def test_tokens_are_listed_and_revoked(commands: Commands) -> None:
    await add(commands, "ann")
    assert await commands.json("token", "list", "ann") == []
    assert await commands.json("token", "revoke", "ann", "--all") == [
        {"username": "ann", "revoked": "all"}
    ]
    assert "has no token 7" in await commands.fail(3, "token", "revoke", "ann", "7")
    assert "no user" in await commands.fail(3, "token", "list", "nobody")


@pytest.fixture
def stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands on a SQLite database that nobody has open."""
    path = tmp_path / "chatd.db"
    path.write_bytes(new_database())
    return Commands(f"sqlite:{path}", capsys)


@ensureDeferred
async def test_what_people_see(stopped: Commands) -> None:
    assert await stopped.run(
        "user", "add", "ann", "--email", "ann@example.org", "--generate-password"
    ) == Matching(r"ann is user 1\.\npassword: \S{24}\n")
    from twisted.internet import reactor

    store, _ = await compose_administration(stopped.settings, reactor)
    token = await store.add_token(1, b"digest")
    assert token is not None
    await store.close()
    shown = await stopped.run("user", "show", "ann")
    assert shown.splitlines()[:3] == [
        "id            1",
        "username      ann",
        "email         ann@example.org",
    ]
    assert "last seen at  -\n" in shown
    listed = (await stopped.run("user", "list")).splitlines()
    assert listed[0].split() == (
        ["ID", "NAME", "EMAIL", "JOINED", "LAST", "SEEN", "MESSAGES", "BYTES", "TOKENS", "DISABLED"]
    )
    assert listed[1] == Matching(
        r"1   ann   ann@example\.org  \S+  -          0         0      1       -"
    )
    [line] = (await stopped.run("token", "list", "ann")).splitlines()[1:]
    assert line == Matching(r"1   -      read, send, account  \S+  -          -")
    assert await stopped.run("token", "revoke", "ann", "1") == "Token 1 is revoked.\n"
    assert await stopped.run("token", "revoke", "ann", "--all") == "All tokens are revoked.\n"
    assert await stopped.run("user", "disable", "ANN") == (
        "ann is disabled. All sessions have ended.\n"
    )
    assert await stopped.run("user", "enable", "ann") == "ann can log in.\n"
    assert await stopped.run("user", "delete", "ann", "--yes", "--erase") == "ann is deleted.\n"


class Matching(str):
    """Equal to texts that match the expression."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self, other) is not None

    __hash__ = str.__hash__


@ensureDeferred
async def test_a_password_is_read_from_a_file(stopped: Commands, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\nanother line\n")
    arguments = ["user", "add", "ann", "--email", "ann@example.org", "--password-file"]
    assert await stopped.run(*arguments, str(file)) == "ann is user 1.\n"
    from twisted.internet import reactor

    store, _ = await compose_administration(stopped.settings, reactor)
    credentials = await store.credentials("ann")
    await store.close()
    assert credentials is not None
    assert cheap_hasher().verify(credentials.password_hash, "correct horse")
    file.write_text("1234\n")
    assert "5 to 1024 characters" in await stopped.fail(1, *arguments, str(file))
    assert "cannot read" in await stopped.fail(1, *arguments, str(tmp_path / "none"))
    file.write_bytes(b"\xff")
    assert "not UTF-8" in await stopped.fail(1, *arguments, str(file))


@ensureDeferred
async def test_nothing_is_asked_without_a_terminal(
    stopped: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert "--password-file" in await stopped.fail(
            1, "user", "add", "ann", "--email", "ann@example.org"
        )
        assert "--yes" in await stopped.fail(1, "user", "delete", "ann")


@ensureDeferred
async def test_a_missing_database_is_not_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.db"
    commands = Commands(f"sqlite:{missing}", capsys)
    assert "there is no database" in await commands.fail(1, "user", "list")
    assert list(tmp_path.iterdir()) == []


@ensureDeferred
async def test_an_old_database_is_not_upgraded(stopped: Commands) -> None:
    path = stopped.settings.db.removeprefix("sqlite:")
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    assert "run chatd db upgrade" in await stopped.fail(1, "user", "list")


@ensureDeferred
async def test_a_daemon_that_does_not_answer_is_waited_for(
    stopped: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "WAIT_SECONDS", 0.0)
    async with daemon_of(stopped.settings):
        path = admin_socket_path(stopped.settings)
        assert path is not None
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        os.rename(path, f"{path}.away")
        assert f"process {os.getpid()}, and that does not answer" in await stopped.fail(
            1, "user", "list"
        )
        os.rename(f"{path}.away", path)
        await stopped.run("user", "list")
    assert not os.path.exists(path)


@ensureDeferred
async def test_a_socket_may_have_a_long_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    (folder / "chatd.db").write_bytes(new_database())
    commands = Commands(f"sqlite:{folder / 'chatd.db'}", capsys)
    async with daemon_of(commands.settings):
        await add(commands, "ann")
    assert [each["id"] for each in await commands.json("user", "list")] == [1]

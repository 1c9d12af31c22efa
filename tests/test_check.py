"""What `--check` says of settings, certificates and databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatd.check import check
from chatd.compose import service as composed_service
from chatd.compose import storage
from chatd.config import ConfigError, load
from chatd.errors import StartError
from chatd.store.migrations import migrations
from chatd.store.sqlite.file import open_writer
from tests.doubles import InlineExecutor
from tests.integration.certificate import write_certificate
from tests.postgres_server import Databases, connected, rows

# Twisted makes its TLS contexts so.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

NEWEST = len(migrations("sqlite"))


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (composed_service, storage):
        monkeypatch.setattr(module, "ThreadPool", lambda *_: InlineExecutor())


Check = Callable[..., list[str]]


@pytest.fixture
def checked(tmp_path: Path) -> Check:
    """`check` with a database in the temporary folder, which is as it was afterwards."""

    def run(**given: Any) -> list[str]:
        from twisted.internet import reactor

        names = {name.replace("_", "-"): value for name, value in given.items()}
        settings, _ = load({"db": f"sqlite:{tmp_path}/chatd.db", **names}, {})
        return check(settings, reactor)

    return run


def refusal(checked: Check, **given: Any) -> str:
    """The line that says what is wrong."""
    with pytest.raises((ConfigError, StartError)) as wrong:
        checked(**given)
    [line] = str(wrong.value).splitlines()
    return line


def test_it_says_what_would_be_opened(checked: Check, tmp_path: Path) -> None:
    first, *lines = checked(listen=["tcp:1", "unix:a"], admin="tcp:9080")
    assert first.endswith(" would run in one process")
    assert lines == [
        "listen on tcp:1",
        "listen on unix:a",
        "admin on tcp:9080",
        f"create the database {tmp_path}/chatd.db with schema version {NEWEST}",
    ]
    assert not list(tmp_path.iterdir())


def test_sockets_of_systemd_need_not_be_there(checked: Check) -> None:
    _, *lines, _ = checked(
        listen=["systemd:domain=INET:name=chatd", "tcp:1"], admin="systemd:domain=UNIX:index=1"
    )
    assert lines == [
        "listen on systemd:domain=INET:name=chatd, a socket that systemd passes",
        "listen on tcp:1",
        "admin on systemd:domain=UNIX:index=1, a socket that systemd passes",
    ]
    for wrong in ("systemd:INET", "systemd:domain=INET", "systemd:domain=IP:index=0"):
        assert refusal(checked, listen=wrong).startswith(f"listen: '{wrong}' is not systemd:")


@pytest.mark.parametrize("prefix", ["", "haproxy:"])
def test_certificates_are_read(checked: Check, tmp_path: Path, prefix: str) -> None:
    pem = tmp_path / "server.pem"
    write_certificate(pem)
    endpoint = f"{prefix}ssl:443:privateKey={pem}"
    line = checked(listen=[endpoint])[1]
    assert line.startswith(f"listen on {endpoint}, whose certificate is valid until 20")
    write_certificate(pem, days=-1)
    expired = refusal(checked, listen=endpoint)
    assert expired.startswith(f"listen: {endpoint}: the certificate is valid until 20")
    other = tmp_path / "other.pem"
    write_certificate(other, key=False)
    mixed = f"{endpoint}:certKey={other}"
    assert refusal(checked, listen=mixed).endswith(
        "Certificate public and private keys do not match."
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"listen": "nonsense:1"}, "listen: 'nonsense:1' is not an endpoint"),
        ({"listen": "ssl:1:privateKey=/nonexistent"}, "listen: 'ssl:1:privateKey=/nonexistent'"),
        ({"workers": 2}, "workers: more than 1 needs PostgreSQL"),
        ({"db": "sqlite:/nonexistent/a.db"}, "cannot open the database /nonexistent/a.db: the"),
        ({"db": "sqlite:/dev/null/a.db"}, "cannot open the database /dev/null/a.db: the folder"),
        ({"db": "postgresql://u:hidden@127.0.0.1:1/d"}, "cannot use the database postgresql://u@"),
        ({"db": "postgresql:///d", "workers": 2, "listen": "unix:a"}, "listen: workers cannot"),
    ],
)
def test_what_cannot_work_is_one_line(checked: Check, given: dict[str, Any], line: str) -> None:
    refused = refusal(checked, **given)
    assert refused.startswith(line)
    assert "hidden" not in refused


def test_a_removed_working_folder_is_one_line(
    checked: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert refusal(checked, db="sqlite:a.db").startswith("db: a.db is in no folder")


def test_a_log_of_another_database_is_told(checked: Check, tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    lock, db, _ = open_writer(str(path), migrations("sqlite"))
    db.close()
    lock.release()
    (tmp_path / "chatd.db-wal").write_bytes(b"of the former one")
    assert checked()[-1].startswith("use the database")
    path.rename(tmp_path / "away")
    assert "is missing or empty" in refusal(checked)


def test_a_database_is_not_upgraded(checked: Check, tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    lock, db, _ = open_writer(str(path), migrations("sqlite")[:3])
    # A daemon that runs does not disturb.
    line = checked()[-1]
    assert line == f"copy the database {path}, then upgrade it from schema version 3 to {NEWEST}"
    db.close()
    lock.release()
    assert checked()[-1] == line
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (3,)


def test_a_database_of_this_version_is_used(checked: Check, tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    lock, db, _ = open_writer(str(path), migrations("sqlite"))
    assert checked()[-1] == f"use the database {path}, whose schema version is {NEWEST}"
    db.execute(f"PRAGMA user_version = {NEWEST + 1}")
    db.close()
    lock.release()
    assert f"schema version {NEWEST + 1}, this chatd knows" in refusal(checked)


def test_files_of_others_are_refused(checked: Check, tmp_path: Path) -> None:
    path = tmp_path / "chatd.db"
    path.write_bytes(b"not a database, whatever it is called")
    assert refusal(checked).endswith("file is not a database")
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE a (b)")
    db.close()
    assert refusal(checked).endswith("was not made by chatd")


def test_a_postgresql_is_looked_at(
    checked: Check, postgres: Databases, postgres_database: str
) -> None:
    newest = len(migrations("postgres"))
    empty = postgres.create()
    lines = checked(db=postgres.url(empty), workers=2, admin="tcp:9080")
    postgres.drop(empty)
    assert lines[0].endswith(" would run in 2 workers and their supervisor")
    assert lines[-1].startswith("create the tables of the database postgresql://")
    assert lines[-1].endswith(f" with schema version {newest}")
    url = postgres.url(postgres_database)
    assert checked(db=url)[-1].endswith(f", whose schema version is {newest}")
    with connected(url) as db:
        rows(db, "UPDATE schema_version SET version = 1")
        assert checked(db=url)[-1].endswith(f"from schema version 1 to {newest}")
        rows(db, "UPDATE schema_version SET version = 1000")
        assert "schema version 1000, this chatd knows" in refusal(checked, db=url)

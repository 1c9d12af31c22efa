"""Administrators' commands as processes, beside real daemons."""

from __future__ import annotations

import time
from pathlib import Path

from tests.daemon import CHATS, PASSWORD, TOKENS, Daemon, basic, environment, wait_until
from tests.fork_server import completed
from tests.postgres_server import Databases

OPTIONS = ("--admin", "tcp:0:interface=127.0.0.1", "--registration", "closed")


def chatd(folder: Path, *arguments: str, typed: str = "", **variables: str) -> tuple[int, str, str]:
    """Run the command; returns its status, output and errors."""
    command = ["-m", "chatd.cli", *arguments]
    done = completed(command, cwd=folder, env=environment(**variables), typed=typed)
    return done.returncode, done.stdout, done.stderr


def add(folder: Path, name: str, **variables: str) -> None:
    """Add an account with the password `PASSWORD`."""
    status, _, error = chatd(
        folder,
        *("user", "add", name, "--email", f"{name}@example.org", "--password-file", "-"),
        typed=PASSWORD + "\n",
        **variables,
    )
    assert (status, error) == (0, "")


def ends_polls(daemon: Daemon, administered: Path, **variables: str) -> None:
    """Disable an account while it holds polls, with a token and with its password."""
    add(administered, "ann", **variables)
    tokens = daemon.client(daemon.log_in("ann"))
    password = daemon.client(basic("ann"))
    for client in (tokens, password):
        client.send("GET", f"{CHATS}?since=now&wait=55")
    wait_until(lambda: daemon.polls_held() == 2, 10)
    assert chatd(administered, "user", "disable", "ann", **variables)[0] == 0
    began = time.monotonic()
    for client in (tokens, password):
        response = client.receive()
        assert (response.status, response.json["code"]) == (401, "unauthorized")
    assert time.monotonic() - began < 1
    refused = daemon.request("POST", TOKENS, {"username": "ann", "password": PASSWORD})
    assert (refused.status, refused.json["code"]) == (401, "account_disabled")
    assert chatd(administered, "user", "enable", "ann", **variables)[0] == 0
    assert daemon.request("GET", CHATS, auth=basic("ann")).status == 200


def test_a_sqlite_daemon_is_administered_while_it_runs(tmp_path: Path) -> None:
    with Daemon(tmp_path, *OPTIONS) as daemon:
        ends_polls(daemon, tmp_path)
        assert chatd(tmp_path, "user", "show", "bob") == (
            3,
            "",
            "chatd: there is no user of the name bob\n",
        )
        assert "administration: DisableUser of ann" in daemon.logged()
    # The same command works on the database of a daemon that has stopped.
    status, out, _ = chatd(tmp_path, "user", "list", CHATD_DB=f"sqlite:{tmp_path}/chatd.db")
    assert (status, out.splitlines()[1].split()[1]) == (0, "ann")


def test_postgresql_daemons_are_administered_while_they_run(
    tmp_path: Path, postgres: Databases, postgres_database: str
) -> None:
    url = postgres.url(postgres_database)
    config = tmp_path / "chatd.toml"
    config.write_text(f'db = "{url}"\n')
    with Daemon(tmp_path, *OPTIONS, "--config", str(config)) as daemon:
        ends_polls(daemon, tmp_path, CHATD_CONFIG=str(config))


def test_settings_are_checked(tmp_path: Path) -> None:
    for arguments in (["--db", "nonsense"], ["--config", "none.toml"]):
        status, out, error = chatd(tmp_path, "user", "list", *arguments)
        assert (status, out) == (2, "")
        assert error.startswith("chatd: ")
        assert error.count("\n") == 1

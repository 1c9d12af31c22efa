"""Start, failure to start, and stop of a real daemon."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from chatd.config import OPTIONS
from chatd.process.signals import REPEAT_SECONDS
from tests.daemon import (
    CHATS,
    ROOT,
    START_SECONDS,
    TWISTD,
    USERS,
    Daemon,
    basic,
    environment,
    run,
    wait_until,
)
from tests.integration.certificate import write_certificate
from tests.integration.traffic import inbox
from tests.postgres_server import Databases

ADMIN = ("--admin", "tcp:0:interface=127.0.0.1")


def test_a_held_poll_is_answered_as_soon_as_a_message_is_sent(tmp_path: Path) -> None:
    with Daemon(tmp_path, *ADMIN) as daemon:
        ann = daemon.register("ann")
        daemon.register("bob")
        reader = daemon.client(daemon.log_in("ann"))
        writer = daemon.client(daemon.log_in("bob"))
        cursor, delays = reader.get(CHATS).json["meta"]["cursor"], []
        for number in range(9):
            reader.send("GET", f"{CHATS}?since={cursor}&wait=30")
            wait_until(lambda: daemon.polls_held() == 1, 10)
            began = time.monotonic()
            assert writer.request("POST", CHATS, {"user_id": ann, "message": "hai"}).status == 201
            document = reader.receive().json
            delays.append(time.monotonic() - began)
            assert [message["seq"] for message in document["messages"]] == [number + 1]
            cursor = document["meta"]["cursor"]
        assert statistics.median(delays) < 0.25, delays


def test_the_first_log_line_names_the_addresses_and_the_database(tmp_path: Path) -> None:
    with Daemon(tmp_path, *ADMIN) as daemon:
        assert "[chatd.process.service#info] chatd " in daemon.logged().splitlines()[0]
        assert daemon.location == f"sqlite:{tmp_path.resolve()}/chatd.db"
        assert daemon.client().get("/readyz").json == {"status": "ready"}
        assert daemon.client().get("/metrics").status == 404
        admin = daemon.client(admin=True)
        assert admin.get("/readyz").json == {"status": "ready"}
        assert admin.get("/healthz").json == {"status": "ok"}
        metrics = admin.get("/metrics").body
        assert b"chatd_polls_held 0.0" in metrics
        assert b'route="readyz",status="200"' in metrics
        assert admin.get(CHATS).status == 404


def test_sigterm_answers_held_polls_and_ends_within_5_seconds(tmp_path: Path) -> None:
    with Daemon(tmp_path, *ADMIN) as daemon:
        daemon.register("ann")
        token = daemon.log_in("ann")
        idle, fresh = daemon.client(), socket.create_connection(("127.0.0.1", daemon.port))
        assert idle.get("/healthz").status == 200
        polls = [daemon.client(token) for _ in range(3)]
        for poll in polls:
            poll.send("GET", CHATS + "?since=now&wait=50")
        wait_until(lambda: daemon.polls_held() == 3, 10)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        for poll in polls:
            response = poll.receive()
            assert response.status == 200
            assert response.headers["Connection"] == "close"
            assert 1 <= int(response.headers["Retry-After"]) <= 60
            meta = response.json["meta"]
            assert (response.json["messages"], meta["timed_out"]) == ([], False)
            assert meta["cursor"].endswith("-0")
        assert daemon.wait() == 0
        assert time.monotonic() - began < 5
        assert "chatd has stopped" in daemon.logged()
        assert "Traceback" not in daemon.logged()
        idle.close()
        fresh.close()


def test_a_later_sigterm_aborts_the_drain(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--drain-seconds", "60") as daemon:
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as slow:
            # The drain waits for this incomplete request.
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a")
            assert slow.recv(4096).startswith(b"HTTP/1.1 200 OK")
            daemon.signal(signal.SIGTERM)
            wait_until(lambda: "told to stop by SIGTERM" in daemon.logged(), 10)
            # Signals in quick succession, as a process group gets them, count as one.
            daemon.signal(signal.SIGTERM)
            time.sleep(REPEAT_SECONDS + 0.5)
            assert "told to stop again" not in daemon.logged()
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(5) == 0
            with pytest.raises(ConnectionResetError):
                slow.recv(1)
        assert "told to stop again" in daemon.logged()
        assert "chatd has stopped" in daemon.logged()
        assert "Traceback" not in daemon.logged()


def test_sighup_reloads_settings_and_the_certificate_and_reopens_the_log(tmp_path: Path) -> None:
    pem, config, log = tmp_path / "server.pem", tmp_path / "chatd.toml", tmp_path / "chatd.log"
    write_certificate(pem)
    text = 'listen = ["tcp:0:interface=127.0.0.1"]\nlog-level = "info"\n'
    config.write_text(text)
    tls = f"ssl:0:privateKey={pem}:interface=127.0.0.1"
    command_line = [str(TWISTD), "--nodaemon", "--pidfile=", f"--logfile={log}", "chatd"]
    command_line += ["--config", "chatd.toml", "--admin", tls, "--db", "sqlite:chatd.db"]
    with Daemon(tmp_path, command_line=command_line, log=log) as daemon:
        body = {"username": "ann", "email": "a@b", "password": "12345"}
        assert daemon.request("POST", USERS, body).status == 201
        port = re.search(r"https://127\.0\.0\.1:([0-9]+)", daemon.logged())
        assert port is not None
        admin = ("127.0.0.1", int(port[1]))
        before = ssl.get_server_certificate(admin)
        write_certificate(pem)
        config.write_text(f'{text}registration = "closed"\naccess-log = "on"\n')
        log.rename(tmp_path / "old.log")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: log.exists() and "need a restart: access-log" in log.read_text(), 10)
        reopened = log.read_text()
        assert f"the certificate of {tls} is reloaded" in reopened
        assert "the settings are reloaded; changed: registration" in reopened
        assert ssl.get_server_certificate(admin) != before
        body["username"] = "bob"
        assert daemon.request("POST", USERS, body).json["code"] == "registration_closed"
        log.rename(tmp_path / "old.log")
        daemon.signal(signal.SIGUSR1)
        wait_until(log.exists, 10)
        assert daemon.stop() == 0
        assert "chatd has stopped" in log.read_text()


def test_an_idle_daemon_stops_immediately_and_keeps_its_data(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        ann = daemon.register("ann")
        token = daemon.log_in("ann")
        client = daemon.client(token)
        cursor = client.request("GET", CHATS).json["meta"]["cursor"]
        client.request("POST", CHATS, {"user_id": ann, "message": "hai"})
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        assert [path.name for path in tmp_path.glob("chatd.db*")] != []
        daemon.start()
        document = daemon.client(basic("ann")).get(f"{CHATS}?since={cursor}").json
        assert [message["message"] for message in document["messages"]] == ["hai"]
        assert daemon.client(token).get(CHATS).status == 200
        client.close()


def taken_port() -> socket.socket:
    """A listening socket."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def start_errors(output: str) -> list[str]:
    """The log lines that say why the daemon cannot start."""
    assert "Traceback" not in output
    return [line for line in output.splitlines() if "chatd cannot start: " in line]


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with taken_port() as taken:
        port = taken.getsockname()[1]
        process = run(tmp_path, "--listen", f"tcp:{port}:interface=127.0.0.1")
    assert process.returncode == 1
    [line] = start_errors(process.stdout)
    assert line.endswith(f"cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use")


def test_a_daemonized_start_that_fails_tells_why(tmp_path: Path) -> None:
    with taken_port() as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        process = subprocess.run(
            [str(TWISTD), "chatd", "--listen", endpoint],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert process.returncode == 1
    assert f"cannot listen on {endpoint}: Address already in use"[:60] in process.stderr
    [line] = start_errors((tmp_path / "twistd.log").read_text())
    assert line.endswith(": Address already in use")
    # The parent may exit a moment before the daemon has ended.
    wait_until(lambda: not (tmp_path / "twistd.pid").exists(), 10)


def test_a_second_daemon_on_one_database_is_refused(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        process = run(tmp_path, "--listen", "tcp:0:interface=127.0.0.1")
        assert process.returncode == 1
        [line] = start_errors(process.stdout)
        assert f"is open in another chatd, process {daemon.pid}" in line
        assert daemon.client().get("/readyz").status == 200


def test_an_unusable_database_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"this is not a database, whatever it is called")
    for url in ("sqlite:/nonexistent/chatd.db", "sqlite:other.db"):
        process = run(tmp_path, "--db", url, "--listen", "tcp:0:interface=127.0.0.1")
        assert process.returncode == 1
        [line] = start_errors(process.stdout)
        assert "the database" in line


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["--no-such-option"], {}, "chatd: option --no-such-option not recognized"),
        ([], {"CHATD_MAX_POLLS": "many"}, "chatd: CHATD_MAX_POLLS: 'many' is not a whole number"),
        (["--listen", "tcp:nowhere:1:2:3"], {}, "chatd: listen: 'tcp:nowhere:1:2:3'"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    process = run(tmp_path, *arguments, **variables)
    assert process.returncode != 0
    assert "Traceback" not in process.stdout
    [line] = [line for line in process.stdout.splitlines() if "chatd: " in line]
    assert line.startswith(expected)
    assert not list(tmp_path.glob("*.db*"))


def test_a_file_configures_the_daemon_and_unknown_variables_cause_warnings(tmp_path: Path) -> None:
    (tmp_path / "chatd.toml").write_text(
        'listen = ["tcp:0:interface=127.0.0.1"]\n'
        'rate-limits = "off"\nregistration = "closed"\ndb = "sqlite:own.db"\n'
        'access-log = "on"\n'
    )
    command_line = [str(TWISTD), "--nodaemon", "--pidfile=", "chatd", "--config", "chatd.toml"]
    with Daemon(tmp_path, command_line=command_line, CHATD_NONSENSE="x") as daemon:
        assert daemon.location.endswith("/own.db")
        body = {"username": "ann", "email": "a@b", "password": "zzzzz"}
        response = daemon.client().request("POST", "/api/v1/users/?hidden=1", body)
        assert (response.status, response.json["code"]) == (403, "registration_closed")
        log = daemon.logged()
        assert "CHATD_NONSENSE is unknown" in log
        # The line is logged after the response has been written.
        wait_until(lambda: "POST /api/v1/users/ 403" in daemon.logged(), 10)
        log = daemon.logged()
        assert "hidden" not in log
        assert "zzzzz" not in log


def serve_by_tac(folder: Path, db: str) -> None:
    command_line = [str(TWISTD), "--pidfile=", "-ny", str(ROOT / "chatd.tac")]
    with Daemon(
        folder, command_line=command_line, CHATD_LISTEN="tcp:0:interface=127.0.0.1", CHATD_DB=db
    ) as daemon:
        ann = daemon.register("ann")
        client = daemon.client(basic("ann"))
        assert client.request("POST", CHATS, {"user_id": ann, "message": "hai"}).status == 201
        assert [message["message"] for message in inbox(client)] == ["hai"]
        client.close()
        assert daemon.stop() == 0


def test_the_tac_file_starts_the_same_service(tmp_path: Path) -> None:
    serve_by_tac(tmp_path, "sqlite:tac.db")
    assert (tmp_path / "tac.db").exists()


def test_the_tac_file_serves_from_postgresql(
    tmp_path: Path, postgres: Databases, postgres_database: str
) -> None:
    serve_by_tac(tmp_path, postgres.url(postgres_database))


def test_it_listens_on_several_endpoints_and_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    endpoints = ["--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{path}"]
    with Daemon(tmp_path, *endpoints) as daemon:
        for _ in range(2):
            assert daemon.client().get("/healthz").status == 200
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(path))
                client.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                received = b""
                while data := client.recv(4096):
                    received += data
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert received.endswith(b'{"status":"ready"}\n')
            # The next daemon replaces the socket that a killed one has left.
            daemon.kill()
            daemon.start()


def test_a_burst_of_connections_is_accepted(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        daemon.signal(signal.SIGSTOP)
        waiting = []
        try:
            for _ in range(300):
                client = socket.create_connection(("127.0.0.1", daemon.port), timeout=10)
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                waiting.append(client)
        finally:
            daemon.signal(signal.SIGCONT)
        for client in waiting:
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
            client.close()


def test_the_readme_lists_the_options() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = set(re.findall(r"^\| `(--[a-z-]+)", readme, re.MULTILINE))
    options = {f"--{option.name}" for option in OPTIONS} | {"--config"}
    assert listed == options

"""A daemon whose socket is held by a service manager: a restart is a pause, and no refusal."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import CHATS, START_SECONDS, Client, command, environment, wait_until

SENDERS = 4
POLLERS = 4
RESTARTS = 1

LAUNCHER = """
import os, sys
descriptor, *line = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(line[0], line)
"""
"""Passes a socket to a program as systemd does: as descriptor 3 of the process that it names."""


class Systemd:
    """Plays systemd: holds a socket, passes it on, and listens to what the service tells."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._socket.getsockname()[1]
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "notify"))
        self._notices.settimeout(START_SECONDS / 3)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service and wait until it says that it is ready."""
        line = command("--listen", "systemd:domain=INET:name=chatd", "--rate-limits=off")
        variables = {
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "chatd",
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-ISc", LAUNCHER, str(self._socket.fileno()), *line],
                cwd=self._folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._socket.fileno()],
            )
        self.wait_for("READY=1")

    def wait_for(self, state: str) -> None:
        """Wait until the service tells this state."""
        while state not in self._notices.recv(4096).decode().split("\n"):
            pass

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop the service; returns its exit status."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        self.wait_for("STOPPING=1")
        return self.process.wait(START_SECONDS)

    def close(self) -> None:
        """Kill the service, and close the socket."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._socket.close()
        self._notices.close()
        print((self._folder / "log").read_text())


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    manager = Systemd(tmp_path)
    try:
        manager.start()
        yield manager
    finally:
        manager.close()


class Load:
    """Clients that send and poll without a pause, and never repeat a request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends = threading.Event()
        self.sent = 0
        self.polled = 0
        self.errors: list[str] = []
        self.names = [f"user{number}" for number in range(SENDERS)]
        client = Client(port)
        self._users = []
        for name in self.names:
            account = {"username": name, "email": f"{name}@example.org", "password": "secret"}
            user_id = client.request("POST", "/api/v1/users/", account).json["id"]
            credentials = {"username": name, "password": "secret"}
            token = client.request("POST", "/api/v1/tokens/", credentials).json["token"]
            self._users.append((user_id, f"Bearer {token}"))
        client.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the clients; their errors are in `errors` afterwards."""
        threads = [threading.Thread(target=self._send, args=user) for user in self._users]
        threads += [
            threading.Thread(target=self._poll, args=self._users[number % SENDERS])
            for number in range(POLLERS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()

    def wait_for_progress(self) -> None:
        """Wait until some more messages are sent."""
        enough = self.sent + 20
        wait_until(lambda: self.sent > enough, 20)

    def _send(self, user_id: int, auth: str) -> None:
        client = Client(self._port, auth)
        while not self._ends.is_set():
            message = {"user_id": user_id, "message": "hai"}
            if self._request(client, 201, "POST", CHATS, message) is not None:
                self.sent += 1
        client.close()

    def _poll(self, _: int, auth: str) -> None:
        client = Client(self._port, auth)
        cursor = "now"
        while not self._ends.is_set():
            found = self._request(client, 200, "GET", f"{CHATS}?since={cursor}&wait=1")
            if found is not None:
                cursor = found["meta"]["cursor"]
                self.polled += 1
        client.close()

    def _request(self, client: Client, status: int, *request: Any) -> Any:
        try:
            response = client.request(*request)
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(f"{request[0]}: {error!r}")
            return None
        if response.status != status:
            self.errors.append(f"{request[0]}: {response.status} {response.body!r}")
            return None
        return response.json


def test_restarts_are_pauses(systemd: Systemd) -> None:
    load = Load(systemd.port)
    idle = Client(systemd.port)
    assert idle.get("/healthz").status == 200
    with load.running():
        for _ in range(RESTARTS):
            load.wait_for_progress()
            assert systemd.stop() == 0
            systemd.start()
        load.wait_for_progress()
    idle.close()
    assert load.errors == []
    assert load.polled > POLLERS
    text = f"{load.sent} sends and {load.polled} polls during {RESTARTS} restart, no error"
    print(text)


def test_a_reload_is_told_and_the_watchdog_is_fed(systemd: Systemd) -> None:
    systemd.wait_for("WATCHDOG=1")
    systemd.signal(signal.SIGHUP)
    systemd.wait_for("READY=1")
    systemd.wait_for("WATCHDOG=1")
    began = time.monotonic()
    assert systemd.stop() == 0
    assert time.monotonic() - began < 5


def test_a_daemon_without_its_socket_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--listen", "systemd:domain=INET:name=chatd"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("chatd: listen: systemd has passed no such socket as 'systemd:")
    assert not os.listdir(tmp_path)

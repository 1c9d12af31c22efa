"""A daemon whose socket is held by a service manager: a restart is a pause, and no refusal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import START_SECONDS, Client, command, environment, wait_until
from tests.fork_server import ForkedProcess, completed
from tests.integration.steady_load import POLLERS, SENDERS, SteadyLoad

RESTARTS = 1
WATCHDOG_SECONDS = 0.6
NOTICE_SECONDS = 10.0


class Systemd:
    """Plays systemd: holds a socket, passes it on, and listens to what the service tells."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.database = folder / "chatd.db"
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._socket.getsockname()[1]
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "notify"))
        self._notices.settimeout(NOTICE_SECONDS)
        self.process: ForkedProcess | None = None

    def start(self) -> None:
        """Start the service and wait until it says that it is ready."""
        line = command("--listen", "systemd:domain=INET:name=chatd", "--rate-limits=off")
        variables = {
            "LISTEN_FDNAMES": "chatd",
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000)),
        }
        with (self._folder / "log").open("ab") as log:
            self.process = ForkedProcess(
                line,
                cwd=self._folder,
                env=environment(**variables),
                stdout=log,
                listener=self._socket,
            )
        self.wait_for("READY=1")

    def wait_for(self, state: str) -> None:
        """Wait until the service tells this state."""
        while state not in self._notices.recv(4096).decode().split("\n"):
            pass

    def is_alive(self, seconds: float) -> bool:
        """Whether the service feeds its watchdog within some seconds, after what it has sent."""
        self._notices.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._notices.recv(4096):
                pass
        self._notices.settimeout(seconds)
        try:
            self._notices.recv(4096)
        except TimeoutError:
            return False
        finally:
            self._notices.settimeout(NOTICE_SECONDS)
        return True

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


def test_restarts_are_pauses(systemd: Systemd) -> None:
    load = SteadyLoad(lambda auth: Client(systemd.port, auth))
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
    assert load.polled
    load.verify()
    print(f"{load.sent} sends and {load.polled} polls during {RESTARTS} restart, no error")


def test_a_reload_is_told_and_the_watchdog_is_fed(systemd: Systemd) -> None:
    systemd.wait_for("WATCHDOG=1")
    systemd.signal(signal.SIGHUP)
    systemd.wait_for("READY=1")
    systemd.wait_for("WATCHDOG=1")
    began = time.monotonic()
    assert systemd.stop() == 0
    assert time.monotonic() - began < 5


@contextlib.contextmanager
def process_hangs(systemd: Systemd) -> Iterator[None]:
    """Stop the process."""
    systemd.signal(signal.SIGSTOP)
    yield


@contextlib.contextmanager
def commit_hangs(systemd: Systemd) -> Iterator[None]:
    """Have commits wait: another process has begun to write."""
    with contextlib.closing(sqlite3.connect(systemd.database, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("hanging", [process_hangs, commit_hangs])
def test_nothing_is_lost_when_the_watchdog_kills_a_daemon_that_hangs(
    systemd: Systemd, hanging: Callable[[Systemd], contextlib.AbstractContextManager[None]]
) -> None:
    load = SteadyLoad(lambda auth: Client(systemd.port, auth))
    with load.running():
        load.wait_for_progress()
        with hanging(systemd):
            # It is fed until there is something to commit.
            wait_until(lambda: not systemd.is_alive(seconds=2 * WATCHDOG_SECONDS), NOTICE_SECONDS)
            assert systemd.process is not None
            systemd.process.kill()
            assert systemd.process.wait() == -signal.SIGKILL
        systemd.start()
        load.wait_for_progress()
    # Those under way were lost, and the clients know: they may repeat them with a key.
    assert len(load.errors) <= SENDERS + POLLERS
    load.verify()


def test_a_daemon_without_its_socket_says_so(tmp_path: Path) -> None:
    line = command("--listen", "systemd:domain=INET:name=chatd")
    done = completed(line, cwd=tmp_path, env=environment())
    assert done.returncode == 1
    assert done.stderr.startswith("chatd: listen: systemd has passed no such socket as 'systemd:")
    assert not os.listdir(tmp_path)

"""A real daemon in a process of its own, for tests that look at it from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from bench.processes import free_port

ROOT = Path(__file__).resolve().parent.parent

# twistd, with the chatd of this tree whatever else is installed.
STARTER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "twistd"
from twisted.scripts.twistd import run
run()
"""

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class ChatdProcess:
    """A daemon on a loopback port with its data in `folder`; it can be restarted there."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "chatd.log"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Returns when the daemon is ready."""
        options = [
            *("--nodaemon", "--pidfile=", "chatd"),
            *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--db", f"sqlite:{self._folder / 'chatd.db'}", *self._options),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", STARTER, str(ROOT), *options],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        ends = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise AssertionError("chatd did not start:\n" + self.log.read_text())
            time.sleep(0.05)
        return self

    def _ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/readyz")[0] == 200
        return False

    def stop(self) -> int:
        """End it as an operator does; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def ask(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> tuple[int, Any]:
        """One request: the status and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None
        if body is not None:
            data = json.dumps(body)
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return response.status, json.loads(text) if text else None

    def account(self, name: str, password: str = "secret") -> tuple[int, str]:
        """Make an account; its id and a token."""
        body = {"username": name, "email": f"{name}@example.org", "password": password}
        status, user = self.ask("POST", "/api/v1/users/", body)
        assert status == 201, user
        status, issued = self.ask(
            "POST", "/api/v1/tokens/", {"username": name, "password": password}
        )
        assert status == 201, issued
        return user["id"], issued["token"]

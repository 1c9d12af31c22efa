"""Real daemons: `twistd` in a folder of its own, and clients that block.

Nothing here knows of a reactor: tests in browsers run without one, others call from threads.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
TWISTD: Final = Path(sys.executable).with_name("twistd")

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0

CHATS: Final = "/api/v1/chats/"
USERS: Final = "/api/v1/users/"
TOKENS: Final = "/api/v1/tokens/"

PASSWORD: Final = "secret"
"""Of the accounts that `Daemon.register` makes."""

_LISTENING: Final = re.compile(r"chatd \S+ is listening on (.+), its data is in (.+)")
_PORT: Final = re.compile(r"http://127\.0\.0\.1:([0-9]+)")


def environment(**variables: str) -> dict[str, str]:
    """This process's, with chatd to be found and none of its variables but the given ones."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHATD_")}
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH")]))
    return {**own, "PYTHONPATH": path, **variables}


def command(*arguments: str) -> list[str]:
    """`twistd chatd` in the foreground."""
    return [str(TWISTD), "--nodaemon", "--pidfile=", "chatd", *arguments]


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A daemon that is to end by itself, to its end; its output is in `stdout`."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


class Daemon:
    """One process. By default it listens where the kernel lets it and has no rate limits.

    `port` is the public port as it was told in the log's first line, 0 where there is none. One
    that is started again where its clients look for it needs a port from `bench.processes`: what
    the kernel gave may meanwhile be somebody else's. With `line` given it is the command line as a
    whole. The log is `log` in the folder, of all daemons that ran there. Leaving the context kills
    what still runs and prints the log, which pytest shows if the test failed.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        port: int = 0,
        line: Sequence[str] = (),
        **variables: str,
    ) -> None:
        self.folder = folder
        self._wanted = port
        self._line = list(line)
        self._arguments = arguments
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self._told = 0
        self.log = folder / "log"
        self.port = port
        self.admin_port = 0
        self.location = ""

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        for client in self._clients:
            client.close()
        if self._process is not None:
            self.kill()
        if self.log.exists():
            print(self.log.read_text())

    @property
    def url(self) -> str:
        """Where the public API begins."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.begin()
        match = wait_until(self._listening, START_SECONDS)
        addresses, self.location = match.groups()
        public, _, admin = addresses.partition(", ")
        self.port = _port(public)
        self.admin_port = _port(admin)

    def begin(self) -> None:
        """Start, and do not wait."""
        arguments = list(self._arguments)
        if not self._line and "--listen" not in arguments:
            arguments += ["--listen", f"tcp:{self._wanted}:interface=127.0.0.1"]
        if not self._line and "--rate-limits" not in arguments:
            arguments += ["--rate-limits", "off"]
        self._told = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._line or command(*arguments),
                cwd=self.folder,
                env=environment(**self._variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _listening(self) -> re.Match[str] | None:
        assert self._process is not None
        match = _LISTENING.search(self.told())
        if match is None and self._process.poll() is not None:
            raise AssertionError(f"the daemon has ended:\n{self.told()}")
        return match

    def told(self) -> str:
        """What this run has logged."""
        return self.log.read_bytes()[self._told :].decode()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end; returns the status, negative for a signal."""
        assert self._process is not None
        status = self._process.wait(seconds)
        self._process = None
        return status

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        self.wait()

    def client(self, auth: str | None = None, *, admin: bool = False) -> Client:
        """A new connection, closed when the context is left."""
        self._clients.append(Client(self.admin_port if admin else self.port, auth))
        return self._clients[-1]

    def polls_held(self) -> int:
        """How many polls the daemon, which needs an admin listener, is holding."""
        client = Client(self.admin_port)
        try:
            metrics = client.get("/metrics").body
        finally:
            client.close()
        match = re.search(rb"^chatd_polls_held (\d+)", metrics, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def ask(self, method: str, target: str, body: object = None, auth: str | None = None) -> Answer:
        """One request on a connection of its own."""
        client = Client(self.port, auth)
        try:
            return client.ask(method, target, body)
        finally:
            client.close()

    def register(self, name: str) -> int:
        """A new account, whose password is `PASSWORD`; returns its id."""
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        answer = self.ask("POST", USERS, body)
        assert answer.status == 201, answer
        user_id: int = answer.json["id"]
        return user_id

    def token(self, name: str) -> str:
        """A new token of an account."""
        answer = self.ask("POST", TOKENS, {"username": name, "password": PASSWORD})
        assert answer.status == 201, answer
        token: str = answer.json["token"]
        return token

    def log_in(self, name: str) -> str:
        """A new token of an account, as the value of Authorization."""
        return bearer(self.token(name))


class Answer(NamedTuple):
    """An answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The document that the body is."""
        return json.loads(self.body)


class Client:
    """A connection that is opened when it is needed, and opened again when it was lost."""

    def __init__(self, port: int, auth: str | None = None, timeout: float = 60) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._auth = auth

    def send(
        self, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request; `receive` takes its answer."""
        fields = dict(headers or {})
        if self._auth is not None:
            fields["Authorization"] = self._auth
        content = None
        if body is not None:
            fields["Content-Type"] = "application/json"
            content = json.dumps(body)
        try:
            self._connection.request(method, target, content, fields)
        except BaseException:
            self.close()
            raise

    def receive(self) -> Answer:
        """The answer to the request that was sent."""
        try:
            response = self._connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except BaseException:
            self.close()
            raise

    def ask(
        self, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request and take its answer."""
        self.send(method, target, body, headers)
        answer = self.receive()
        if answer.headers.get("Connection") == "close":
            self.close()
        return answer

    def get(self, target: str) -> Answer:
        """`GET`."""
        return self.ask("GET", target)

    def close(self) -> None:
        """Go away."""
        self._connection.close()


LOST: Final = (OSError, http.client.HTTPException)
"""What a client meets when its server is killed."""


def basic(name: str) -> str:
    """The value of Authorization of an account made by `Daemon.register`."""
    return "Basic " + b64encode(f"{name}:{PASSWORD}".encode()).decode()


def bearer(token: str) -> str:
    """The value of Authorization of who has the token."""
    return f"Bearer {token}"


def wait_until(look: Callable[[], Any], seconds: float) -> Any:
    """The first true thing that is seen; fails after some seconds."""
    ends = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)
    return seen


def _port(addresses: str) -> int:
    match = _PORT.search(addresses)
    return 0 if match is None else int(match[1])

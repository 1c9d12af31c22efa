"""Real daemons, run by `twistd`, and blocking HTTP clients.

Nothing here needs a reactor: browser tests run without one, and other tests use threads.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from tests.fork_server import ForkedProcess

ROOT: Final = Path(__file__).resolve().parent.parent
TWISTD: Final = Path(sys.executable).with_name("twistd")

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0

CHATS: Final = "/api/v1/chats/"
USERS: Final = "/api/v1/users/"
TOKENS: Final = "/api/v1/tokens/"

PASSWORD: Final = "secret"
"""The password of accounts that `Daemon.register` creates."""

_LISTENING: Final = re.compile(r"chatd \S+ is listening on (.+), its data is in (.+)")
_PORT: Final = re.compile(r"http://127\.0\.0\.1:([0-9]+)")


def environment(**variables: str) -> dict[str, str]:
    """The environment of this process, with chatd importable and configured only by `variables`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHATD_")}
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH")]))
    return {**own, "PYTHONPATH": path, **variables}


def command(*arguments: str) -> list[str]:
    """The command line of `twistd chatd` in the foreground."""
    return [str(TWISTD), "--nodaemon", "--pidfile=", "chatd", *arguments]


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to end by itself; all its output is in `stdout`."""
    from tests.fork_server import completed

    return completed(command(*arguments), cwd=folder, env=environment(**variables), merged=True)


class Daemon:
    """A daemon process, by default on a port that the kernel chooses and without rate limits.

    `port` is the public port according to the first line of the log, 0 if there is none. A daemon
    that is restarted on the same port needs one from `bench.processes.free_port`, because another
    process may meanwhile use the one that the kernel chose. `command_line`, if given, replaces all
    of it. `forked` chooses the fork server, which starts a daemon sooner; the heap of a forked
    daemon has the holes of the server's, so memory is measured without it. The log of all daemons
    in a folder is `log` in it, unless `log` is where the command line has it written. Leaving the
    context kills the process and prints the log, which pytest shows if the test failed.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        port: int = 0,
        command_line: Sequence[str] = (),
        forked: bool = True,
        log: Path | None = None,
        **variables: str,
    ) -> None:
        self.folder = folder
        self._wanted = port
        self._command_line = list(command_line)
        self._arguments = arguments
        self._forked = forked
        self._variables = variables
        self._process: ForkedProcess | subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self._log_start = 0
        self.log = log or folder / "log"
        self._output = folder / "log"
        self.port = port
        self.admin_port = 0
        self.location = ""

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clean_up()

    def _clean_up(self) -> None:
        for client in self._clients:
            client.close()
        if self._process is not None:
            self.kill()
        if self.log.exists():
            print(self.log.read_text())

    @property
    def url(self) -> str:
        """The base URL of the public API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the daemon and wait until it is listening."""
        self.begin()
        match = wait_until(self._listening, START_SECONDS)
        addresses, self.location = match.groups()
        public, _, admin = addresses.partition(", ")
        self.port = _port(public)
        self.admin_port = _port(admin)

    def begin(self) -> None:
        """Start the daemon without waiting."""
        arguments = list(self._arguments)
        if not self._command_line and "--listen" not in arguments:
            arguments += ["--listen", f"tcp:{self._wanted}:interface=127.0.0.1"]
        if not self._command_line and "--rate-limits" not in arguments:
            arguments += ["--rate-limits", "off"]
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self._output.open("ab") as log:
            line = self._command_line or command(*arguments)
            env = environment(**self._variables)
            if self._forked:
                # It imports chatd, which clients in processes of their own do not need.
                from tests.fork_server import ForkedProcess

                self._process = ForkedProcess(line, cwd=self.folder, env=env, stdout=log)
            else:
                self._process = subprocess.Popen(
                    line,
                    cwd=self.folder,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )

    def _listening(self) -> re.Match[str] | None:
        assert self._process is not None
        match = _LISTENING.search(self.logged())
        if match is None and self._process.poll() is not None:
            raise AssertionError(f"the daemon has ended:\n{self.logged()}")
        return match

    def logged(self) -> str:
        """The log since the last start."""
        return self.log.read_bytes()[self._log_start :].decode() if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until the process ends; returns its exit status, negative for a signal."""
        assert self._process is not None
        status = self._process.wait(seconds)
        self._process = None
        return status

    def stop(self) -> int:
        """Send SIGTERM and wait; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self.signal(signal.SIGKILL)
        self.wait()

    def client(self, auth: str | None = None, *, admin: bool = False) -> Client:
        """A new client, closed when the context is left."""
        self._clients.append(Client(self.admin_port if admin else self.port, auth))
        return self._clients[-1]

    def polls_held(self) -> int:
        """The number of polls that are being held; needs an admin listener."""
        client = Client(self.admin_port)
        try:
            metrics = client.get("/metrics").body
        finally:
            client.close()
        match = re.search(rb"^chatd_polls_held (\d+)", metrics, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def request(
        self, method: str, target: str, body: object = None, auth: str | None = None
    ) -> Response:
        """Send one request on a new connection."""
        client = Client(self.port, auth)
        try:
            return client.request(method, target, body)
        finally:
            client.close()

    def register(self, name: str) -> int:
        """Create an account with the password `PASSWORD`; returns its id."""
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        response = self.request("POST", USERS, body)
        assert response.status == 201, response
        user_id: int = response.json["id"]
        return user_id

    def token(self, name: str) -> str:
        """Log in to an account; returns the token."""
        response = self.request("POST", TOKENS, {"username": name, "password": PASSWORD})
        assert response.status == 201, response
        token: str = response.json["token"]
        return token

    def log_in(self, name: str) -> str:
        """Log in to an account; returns the value of the Authorization header."""
        return bearer(self.token(name))


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Client:
    """A client with one connection, which is opened when needed and reopened when lost.

    With `tls`, by HTTPS; `source` is the address that it connects from.
    """

    def __init__(
        self,
        port: int,
        auth: str | None = None,
        timeout: float = 60,
        *,
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
    ) -> None:
        origin = (source, 0)
        self._connection = (
            http.client.HTTPConnection("127.0.0.1", port, timeout, origin)
            if tls is None
            else http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=timeout, source_address=origin, context=tls
            )
        )
        self._auth = auth

    def send(
        self, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request whose response `receive` returns."""
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

    def receive(self) -> Response:
        """The response to the last request."""
        try:
            response = self._connection.getresponse()
            return Response(response.status, response.headers, response.read())
        except BaseException:
            self.close()
            raise

    def request(
        self, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Response:
        """Send a request and return the response."""
        self.send(method, target, body, headers)
        response = self.receive()
        if response.headers.get("Connection") == "close":
            self.close()
        return response

    def get(self, target: str) -> Response:
        """`GET`."""
        return self.request("GET", target)

    def stream(self, target: str, headers: dict[str, str]) -> Generator[Any, None, None]:
        """The JSON lines of a stream."""
        fields = {**headers, **({} if self._auth is None else {"Authorization": self._auth})}
        self._connection.request("GET", target, headers=fields)
        response = self._connection.getresponse()
        assert response.status == 200, response.read()
        while line := response.readline():
            yield json.loads(line)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


LOST: Final = (OSError, http.client.HTTPException)
"""Exceptions that a client may get while its server is killed."""


def basic(name: str) -> str:
    """Authorization header with the password of an account created by `Daemon.register`."""
    return "Basic " + b64encode(f"{name}:{PASSWORD}".encode()).decode()


def bearer(token: str) -> str:
    """Authorization header with a token."""
    return f"Bearer {token}"


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    """Call `condition` until it returns a true value, and return that; fail after `seconds`."""
    ends = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < ends, "the condition did not hold in time"
        time.sleep(0.03)
    return result


def _port(addresses: str) -> int:
    match = _PORT.search(addresses)
    return 0 if match is None else int(match[1])

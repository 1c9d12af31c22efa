"""Real daemons: `twistd` in a folder of its own on a free port, and clients that block."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent.parent
TWISTD: Final = Path(sys.executable).with_name("twistd")

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0

CHATS: Final = "/api/v1/chats/"
USERS: Final = "/api/v1/users/"
TOKENS: Final = "/api/v1/tokens/"

_LISTENING: Final = re.compile(r"chatd \S+ is listening on (.+), its data is in (.+)")
_PORT: Final = re.compile(r"http://127\.0\.0\.1:([0-9]+)")


def environment(**variables: str) -> dict[str, str]:
    """This process's, with chatd to be found and none of its variables but the given ones."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHATD_")}
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH")]))
    return {**own, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables}


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
    """One process. By default it listens on a free port and has no rate limits.

    `port` is the public port as it was told in the log's first line, 0 where there is none. With
    `line` given it is the command line as a whole. The log is `log` in the folder, of all daemons
    that ran there. Leaving the context kills what still runs.
    """

    def __init__(
        self, folder: Path, *arguments: str, line: Sequence[str] = (), **variables: str
    ) -> None:
        self.folder = folder
        self._line = list(line)
        self._arguments = arguments
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self._told = 0
        self.log = folder / "log"
        self.port = 0
        self.admin_port = 0
        self.location = ""

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            if self._process is not None:
                self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            client.close()
        if self._process is not None:
            self.kill()
        if error is not None and self.log.exists():
            print(self.log.read_text())

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, again on the port of the last time, and wait until it listens."""
        arguments = list(self._arguments)
        if not self._line and "--listen" not in arguments:
            arguments += ["--listen", f"tcp:{self.port}:interface=127.0.0.1"]
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
        match = wait_until(self._listening, START_SECONDS)
        addresses, self.location = match.groups()
        public, _, admin = addresses.partition(", ")
        self.port = _port(public)
        self.admin_port = _port(admin)

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

    def register(self, name: str) -> int:
        """A new account, whose password is `password`; returns its id."""
        body = {"username": name, "email": f"{name}@example.org", "password": "password"}
        answer = self.client().ask("POST", USERS, body)
        assert answer.status == 201, answer
        user_id: int = answer.json["id"]
        return user_id

    def log_in(self, name: str) -> str:
        """A token of an account, as the value of Authorization."""
        body = {"username": name, "password": "password"}
        answer = self.client().ask("POST", TOKENS, body)
        assert answer.status == 201, answer
        return f"Bearer {answer.json['token']}"


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
    return "Basic " + b64encode(f"{name}:password".encode()).decode()


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


def free_port() -> socket.socket:
    """A socket that listens on a port of its own."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def inbox(client: Client) -> list[dict[str, Any]]:
    """The whole inbox, oldest first; fails if it is not dense."""
    cursor, messages = "0", []
    while True:
        document = client.get(f"{CHATS}?since={cursor}").json
        messages += document["messages"]
        cursor = document["meta"]["cursor"]
        if not document["meta"]["more"]:
            break
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert document["meta"]["count"] == len(messages)
    return messages


class Background:
    """A thread that asks something again and again until it is told to stop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def once(self) -> None:
        """What is done; may raise what is in `LOST`."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; raises what went wrong meanwhile."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        self._client.close()
        assert not self._thread.is_alive()
        for failure in self._failures:
            raise failure

    @property
    def stopping(self) -> bool:
        """It was told to stop."""
        return self._stopping.is_set()

    def _run(self) -> None:
        try:
            while not self.stopping:
                try:
                    self.once()
                except LOST:
                    time.sleep(0.02)
        except BaseException as failure:
            self._failures.append(failure)


class Sender(Background):
    """Sends numbered messages to the users in turn, and keeps what was acknowledged.

    With keys a message whose answer was lost is sent again until it is acknowledged; without, the
    next one is sent.
    """

    def __init__(self, port: int, auth: str, name: str, to: Sequence[int], keys: bool) -> None:
        super().__init__(Client(port, auth, timeout=20))
        self._name = name
        self._to = to
        self._keys = keys
        self._number = 0
        self._repeated = False
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.refused: list[Answer] = []

    def once(self) -> None:
        text = f"{self._name} {self._number}"
        headers = {"Idempotency-Key": text.replace(" ", "-")} if self._keys else None
        body = {"user_id": self._to[self._number % len(self._to)], "message": text}
        answered = False
        try:
            answer = self._client.ask("POST", CHATS, body, headers)
            answered = True
        finally:
            if answered or not self._keys:
                self._number += 1
            self._repeated = not answered
        if answer.status in (200, 201):
            self.acknowledged[text] = answer.json
        else:
            self.refused.append(answer)


class Follower(Background):
    """Polls with the cursor of the last answer, whatever happens in between."""

    def __init__(self, port: int, auth: str, since: str = "0") -> None:
        super().__init__(Client(port, auth, timeout=20))
        self.cursor = since
        self.seen: list[dict[str, Any]] = []
        self.polls = 0

    def once(self) -> None:
        answer = self._client.get(f"{CHATS}?since={self.cursor}&wait=1")
        assert answer.status == 200, answer
        document = answer.json
        self.seen += document["messages"]
        self.cursor = document["meta"]["cursor"]
        self.polls += 1

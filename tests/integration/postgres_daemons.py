"""Daemons on PostgreSQL, as `twistd` processes, and blocking clients for them."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench.processes import free_port
from tests.daemon import command, environment
from tests.examples import PAUSE_SECONDS
from tests.fork_server import ForkedProcess
from tests.history import ACKNOWLEDGED, UNKNOWN, Event, Seen, Sent, Stored, check

START_SECONDS: Final = 30.0
HTTP_SECONDS: Final = 70.0
CATCH_UP_SECONDS: Final = 15.0


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Call `condition` until it returns a true value, and return that."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if result := condition():
                return result
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Daemon:
    """A `twistd chatd` process whose output goes to `log`."""

    def __init__(self, folder: Path, db: str, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log = folder / f"chatd-{self.port}-{time.monotonic_ns()}.log"
        self._arguments = [
            f"--listen=tcp:{self.port}:interface=127.0.0.1",
            f"--db={db}",
            "--rate-limits=off",
            *options,
        ]
        self._folder = folder
        self.process: ForkedProcess | None = None

    def start(self, wait: bool = True) -> None:
        """Start it, and by default wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = ForkedProcess(
                command(*self._arguments), cwd=self._folder, env=environment(), stdout=log
            )
        if wait:
            eventually(self.ready, START_SECONDS, f"ready\n{self.log.read_text()}")

    def ready(self, port: int | None = None) -> bool:
        """Whether the response to /readyz is 200."""
        return Client(port or self.port).call("GET", "/readyz")[0] == 200

    def children(self) -> list[int]:
        """The process ids of the workers."""
        assert self.process is not None
        pid = self.process.pid
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait until the process ends; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


@contextlib.contextmanager
def running(*daemons: Daemon) -> Iterator[None]:
    """Start daemons together, wait until all are ready, and stop them in the end."""
    try:
        for daemon in daemons:
            daemon.start(wait=False)
        for daemon in daemons:
            eventually(daemon.ready, START_SECONDS, "ready")
        yield
    finally:
        for daemon in daemons:
            if daemon.process is not None:
                daemon.end()
                # Shown with a test that fails.
                print(daemon.log.read_text())


class Client:
    """A client that opens a new connection to one daemon for each request."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port = port
        self.token = token

    def at(self, port: int) -> Client:
        """The same user at another daemon."""
        return Client(port, self.token)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and decoded body; raises `OSError` or `HTTPException` if the daemon is down."""
        sent = {"Connection": "close", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HTTP_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return response.status, json.loads(text) if text else None

    def send(self, user_id: int, text: str, key: str | None = None) -> tuple[int, Any]:
        """Send a message."""
        headers = {} if key is None else {"Idempotency_Key": key}
        return self.call("POST", "/api/v1/chats/", {"user_id": user_id, "message": text}, **headers)

    def poll(self, since: str, wait: float) -> tuple[int, Any]:
        """Wait for messages."""
        return self.call("GET", f"/api/v1/chats/?since={since}&wait={wait}")


def registered(port: int, name: str) -> tuple[int, Client]:
    """Create an account; returns its id and a client that is logged in."""
    anonymous = Client(port)
    status, user = anonymous.call(
        "POST", "/api/v1/users/", {"username": name, "email": "a@example.org", "password": "hello"}
    )
    assert status == 201, user
    status, token = anonymous.call(
        "POST", "/api/v1/tokens/", {"username": name, "password": "hello"}
    )
    assert status == 201, token
    return user["id"], Client(port, token["token"])


@contextlib.contextmanager
def polling(client: Client, since: str, wait: float) -> Iterator[list[Any]]:
    """A held poll in a thread; the list receives its status, its body and the time it ended.

    `now` is replaced with its cursor first, so that no later message is missed.
    """
    response: list[Any] = []
    if since == "now":
        status, body = client.poll(since, 0)
        assert status == 200, body
        since = body["meta"]["cursor"]

    def poll() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            response.extend(client.poll(since, wait))
            response.append(time.monotonic())

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.3)
    assert not response
    yield response
    thread.join(HTTP_SECONDS)


class ConcurrentTraffic:
    """Concurrent senders and followers that continue through failures, and record a history."""

    def __init__(self, ports: list[int], users: list[tuple[int, Client]], senders: int) -> None:
        self._ports = ports
        self._users = users
        self._random = random.Random(3)
        self._sending = True
        self._following = True
        self._events: list[Event] = []
        self._senders = [
            threading.Thread(target=self._send, args=(number,)) for number in range(senders)
        ]
        self._followers = [
            threading.Thread(target=self._follow, args=(user_id, client))
            for user_id, client in users
        ]
        self.errors: Counter[object] = Counter()

    def __enter__(self) -> ConcurrentTraffic:
        for thread in self._senders + self._followers:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sending = False
        for thread in self._senders:
            thread.join(HTTP_SECONDS)
        # Followers poll once more, for what was acknowledged last.
        self._following = False
        for thread in self._followers:
            thread.join(HTTP_SECONDS)

    @property
    def acknowledged(self) -> int:
        """How many sends were acknowledged."""
        return sum(
            isinstance(event, Sent) and event.outcome == ACKNOWLEDGED for event in self._events
        )

    def wait_for_progress(self) -> None:
        """Wait until some more sends are acknowledged."""
        wanted = self.acknowledged + 3 * len(self._senders)
        eventually(lambda: self.acknowledged >= wanted, HTTP_SECONDS, "acknowledged sends")

    def _at_any_daemon(self, client: Client) -> Client:
        return client.at(self._random.choice(self._ports))

    def _send(self, sender: int) -> None:
        number = 0
        while self._sending:
            number += 1
            text = f"{sender}.{number}"
            to, _ = self._random.choice(self._users)
            sent_by, client = self._users[sender % len(self._users)]
            began = time.monotonic()
            stored = self._send_once(client, to, text)
            while stored is None and self._sending:
                time.sleep(0.05)
                stored = self._send_once(client, to, text)
            self._record(stored, began, time.monotonic(), sent_by, to, text)
            time.sleep(PAUSE_SECONDS)

    def _record(self, stored: Stored | None, *sent: Any) -> None:
        """Record a send; `stored` is None if no daemon has acknowledged it."""
        told = (UNKNOWN,) if stored is None else (ACKNOWLEDGED, stored.seq, stored.sent_at)
        self._events.append(Sent(*sent, *told))

    def _send_once(self, client: Client, to: int, text: str) -> Stored | None:
        """Send at any daemon, each time with the same key; None if it has to be repeated."""
        try:
            status, body = self._at_any_daemon(client).send(to, text, key=text)
        except (OSError, http.client.HTTPException) as problem:
            self.errors[type(problem)] += 1
            return None
        if status in (200, 201):
            return Stored.of(body)
        self.errors[status] += 1
        assert status == 503, body
        return None

    def _follow(self, user_id: int, client: Client) -> None:
        cursor, last, ends = "0", 0, math.inf
        while True:
            is_last = not self._following
            if is_last:
                ends = min(ends, time.monotonic() + CATCH_UP_SECONDS)
            assert time.monotonic() < ends, "a follower cannot catch up"
            began = time.monotonic()
            try:
                status, body = self._at_any_daemon(client).poll(cursor, 0.5)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if status != 200:
                assert status == 503, body
                time.sleep(0.05)
                continue
            messages = [Stored.of(each) for each in body["messages"]]
            # Not with the count: the cache of another process may end before the inbox does.
            self._events.append(
                Seen(began, time.monotonic(), user_id, last, messages, reader=f"user {user_id}")
            )
            last += len(messages)
            cursor = body["meta"]["cursor"]
            if is_last and not messages:
                return

    def verify(self, port: int) -> None:
        """Check the history against the inboxes at a daemon, and that followers got all."""
        inboxes = {user_id: _inbox(client.at(port)) for user_id, client in self._users}
        assert check(self._events, inboxes, [f"user {user_id}" for user_id in inboxes]) == []


def _inbox(client: Client) -> list[Stored]:
    """All messages, until an empty response.

    That one comes from the database: the cache of a process, and `more` with it, may end before the
    inbox does.
    """
    inbox: list[Stored] = []
    cursor, found = "0", True
    while found:
        status, body = client.poll(cursor, 0)
        assert status == 200, body
        inbox += map(Stored.of, body["messages"])
        cursor, found = body["meta"]["cursor"], bool(body["messages"])
    return inbox

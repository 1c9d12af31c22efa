"""An innocent client, in a process of its own, and how long its requests take."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from tests.daemon import (
    CHATS,
    LOST,
    PASSWORD,
    ROOT,
    TOKENS,
    USERS,
    Client,
    bearer,
    environment,
)

PAUSE_SECONDS: Final = 0.02
"""After a request of each kind. An account may send 50 messages a second."""

LOG_IN_SECONDS: Final = 1.5
"""Between two log-ins; they are rate-limited for everybody."""

LOST_SECONDS: Final = 20.0
"""What a request counts that was not answered as it should have been."""


class Account(msgspec.Struct):
    """The account of an innocent client, and where its service is; by TLS with `cafile`."""

    port: int
    cafile: str | None
    name: str
    user_id: int
    token: str


class Noticed(msgspec.Struct):
    """What a client has noticed: the durations of its requests by kind, in seconds.

    `refusals` counts what was answered 429 or 503, or not at all.
    """

    seconds: dict[str, list[float]]
    refusals: int

    def p99(self, kind: str) -> float:
        """In seconds; the largest of few."""
        durations = sorted(self.seconds[kind])
        return durations[min(len(durations) - 1, int(len(durations) * 0.99))]


@contextmanager
def innocent(account: Account) -> Iterator[list[Noticed]]:
    """A client that uses the service for as long as the context lasts.

    The list has what it has noticed afterwards.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.innocent"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    noticed: list[Noticed] = []
    try:
        process.stdin.write(msgspec.json.encode(account) + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield noticed
        process.stdin.close()
        noticed.append(msgspec.json.decode(process.stdout.read(), type=Noticed))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class _Client:
    """Uses a service until it is stopped.

    It reads its `page` and sends a message (`send`) on one connection; on others it reads its page
    on a connection that is `new`, looks `users` up, and reads its `conversations`; it logs in.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._tls = account.cafile and ssl.create_default_context(cafile=account.cafile)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._use, daemon=True),
            threading.Thread(target=self._look_up, daemon=True),
            threading.Thread(target=self._log_in, daemon=True),
        ]
        self._noticed = Noticed(defaultdict(list), 0)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Noticed:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._noticed

    def _new_client(self, auth: str | None = None) -> Client:
        return Client(self._account.port, auth, LOST_SECONDS, tls=self._tls or None)

    def _use(self) -> None:
        client = self._new_client(bearer(self._account.token))
        self._timed("new", client, "GET", CHATS)
        body = {"user_id": self._account.user_id, "message": "hello"}
        while not self._stop.wait(PAUSE_SECONDS):
            self._timed("page", client, "GET", CHATS)
            self._timed("send", client, "POST", CHATS, body)
        client.close()

    def _look_up(self) -> None:
        auth = bearer(self._account.token)
        client = self._new_client(auth)
        self._timed("new", client, "GET", CHATS)
        while not self._stop.wait(PAUSE_SECONDS):
            new = self._new_client(auth)
            self._timed("new", new, "GET", CHATS)
            new.close()
            self._timed("users", client, "GET", USERS)
            self._timed("conversations", client, "GET", "/api/v1/conversations/")
        client.close()

    def _log_in(self) -> None:
        body = {"username": self._account.name, "password": PASSWORD}
        while True:
            client = self._new_client()
            self._timed("log in", client, "POST", TOKENS, body)
            client.close()
            if self._stop.wait(LOG_IN_SECONDS):
                break

    def _timed(
        self, kind: str, client: Client, method: str, target: str, body: object = None
    ) -> None:
        began = time.monotonic()
        try:
            status = client.request(method, target, body).status
        except LOST:
            status = 0
        if status in (200, 201):
            self._noticed.seconds[kind].append(time.monotonic() - began)
        else:
            self._noticed.refusals += 1
            self._noticed.seconds[kind].append(LOST_SECONDS)


def _main() -> None:
    client = _Client(msgspec.json.decode(sys.stdin.readline(), type=Account))
    client.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    sys.stdout.write(msgspec.json.encode(client.stop()).decode())


if __name__ == "__main__":
    _main()

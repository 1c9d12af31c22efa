"""An innocent client, and how long its requests take."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Final

from tests.daemon import CHATS, LOST, PASSWORD, TOKENS, Client, Daemon, bearer

PAUSE_SECONDS: Final = 0.01
LOG_IN_SECONDS: Final = 1.5
"""Between two log-ins; they are rate-limited for everybody."""

LOST_SECONDS: Final = 20.0
"""What a request counts that was not answered as it should have been."""


class Innocent:
    """Reads its page, sends a message and logs in, for as long as the context lasts.

    `seconds` are the durations of what it asked for, by kind; `refusals` counts what was answered
    429 or 503, or not at all.
    """

    def __init__(self, daemon: Daemon, name: str, user_id: int, token: str) -> None:
        self._daemon = daemon
        self._name = name
        self._user_id = user_id
        self._token = token
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._use, daemon=True),
            threading.Thread(target=self._log_in, daemon=True),
        ]
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.refusals = 0

    def __enter__(self) -> Innocent:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def p99(self, kind: str) -> float:
        """In seconds; the largest of few."""
        durations = sorted(self.seconds[kind])
        assert durations, f"no {kind} was answered"
        return durations[min(len(durations) - 1, int(len(durations) * 0.99))]

    def _use(self) -> None:
        client = Client(self._daemon.port, bearer(self._token), timeout=LOST_SECONDS)
        body = {"user_id": self._user_id, "message": "hello"}
        while not self._stop.wait(PAUSE_SECONDS):
            self._timed("page", client, "GET", CHATS)
            self._timed("send", client, "POST", CHATS, body)
        client.close()

    def _log_in(self) -> None:
        body = {"username": self._name, "password": PASSWORD}
        while True:
            client = Client(self._daemon.port, timeout=LOST_SECONDS)
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
            self.seconds[kind].append(time.monotonic() - began)
        else:
            self.refusals += 1
            self.seconds[kind].append(LOST_SECONDS)

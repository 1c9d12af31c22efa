"""Background senders and followers that survive restarts of the daemon, and record responses."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.daemon import CHATS, LOST, STOP_SECONDS, Client, Response
from tests.examples import PAUSE_SECONDS
from tests.history import ACKNOWLEDGED, REFUSED, UNKNOWN, Event, Outcome, Seen, Sent, Stored


def inbox(client: Client) -> list[dict[str, Any]]:
    """The whole inbox, oldest first; fails if its numbering has gaps."""
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
    """A thread that repeats a request until it is stopped."""

    pause_seconds = 0.0
    """Between two requests."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def once(self) -> None:
        """One request; may raise exceptions in `LOST`."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; raises its exception if it failed."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        self._client.close()
        assert not self._thread.is_alive()
        for failure in self._failures:
            raise failure

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def _run(self) -> None:
        try:
            while not self.stopping:
                try:
                    self.once()
                    self._stopping.wait(self.pause_seconds)
                except LOST:
                    time.sleep(0.02)
        except BaseException as failure:
            self._failures.append(failure)


class Sender(Background):
    """Sends numbered messages to users in turn, and records what became of them.

    With keys, a message whose response was lost is sent again until it is acknowledged; without,
    the next one is sent.
    """

    pause_seconds = PAUSE_SECONDS

    def __init__(
        self,
        port: int,
        auth: str,
        user_id: int,
        name: str,
        to: Sequence[int],
        keys: bool,
        events: list[Event],
    ) -> None:
        super().__init__(Client(port, auth, timeout=20))
        self._user_id = user_id
        self._name = name
        self._to = to
        self._keys = keys
        self._events = events
        self._number = 0
        self._began: float | None = None
        self.acknowledged = 0
        self.refused: list[Response] = []

    def once(self) -> None:
        text = self._text
        headers = {"Idempotency-Key": text.replace(" ", "-")} if self._keys else None
        if self._began is None:
            self._began = time.monotonic()
        try:
            response = self._client.request(
                "POST", CHATS, {"user_id": self._recipient, "message": text}, headers
            )
        except LOST:
            if not self._keys:
                self._record(UNKNOWN)
            raise
        if response.status in (200, 201):
            message = Stored.of(response.json)
            self._record(ACKNOWLEDGED, message.seq, message.sent_at)
            self.acknowledged += 1
        else:
            self._record(UNKNOWN if response.status >= 500 else REFUSED)
            self.refused.append(response)

    def stop(self) -> None:
        super().stop()
        if self._began is not None:
            self._record(UNKNOWN)

    @property
    def _text(self) -> str:
        return f"{self._name} {self._number}"

    @property
    def _recipient(self) -> int:
        return self._to[self._number % len(self._to)]

    def _record(self, outcome: Outcome, seq: int = 0, sent_at: str = "") -> None:
        assert self._began is not None
        route = self._began, time.monotonic(), self._user_id, self._recipient, self._text
        self._events.append(Sent(*route, outcome, seq, sent_at))
        self._number += 1
        self._began = None


class Follower(Background):
    """Polls with the cursor of the last response, across failures, and records what it sees."""

    def __init__(self, port: int, auth: str, user_id: int, name: str, events: list[Event]) -> None:
        super().__init__(Client(port, auth, timeout=20))
        self._user_id = user_id
        self._cursor = "0"
        self._events = events
        self.name = name
        self.seen = 0

    def once(self) -> None:
        began = time.monotonic()
        response = self._client.get(f"{CHATS}?since={self._cursor}&wait=1")
        assert response.status == 200, response
        document = response.json
        messages = [Stored.of(each) for each in document["messages"]]
        self._events.append(
            Seen(
                began,
                time.monotonic(),
                self._user_id,
                self.seen,
                messages,
                document["meta"]["count"],
                self.name,
            )
        )
        self.seen += len(messages)
        self._cursor = document["meta"]["cursor"]


def whole_inbox(client: Client) -> list[Stored]:
    """`inbox`, to be compared with a history."""
    return [Stored.of(each) for each in inbox(client)]

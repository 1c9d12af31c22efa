"""Background senders and followers that survive restarts of the daemon, and record responses."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.daemon import CHATS, LOST, STOP_SECONDS, Client, Response


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
                except LOST:
                    time.sleep(0.02)
        except BaseException as failure:
            self._failures.append(failure)


class Sender(Background):
    """Sends numbered messages to users in turn, and records which were acknowledged.

    With keys, a message whose response was lost is sent again until it is acknowledged; without,
    the next one is sent.
    """

    def __init__(self, port: int, auth: str, name: str, to: Sequence[int], keys: bool) -> None:
        super().__init__(Client(port, auth, timeout=20))
        self._name = name
        self._to = to
        self._keys = keys
        self._number = 0
        self._repeated = False
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.refused: list[Response] = []

    def once(self) -> None:
        text = f"{self._name} {self._number}"
        headers = {"Idempotency-Key": text.replace(" ", "-")} if self._keys else None
        body = {"user_id": self._to[self._number % len(self._to)], "message": text}
        responded = False
        try:
            response = self._client.request("POST", CHATS, body, headers)
            responded = True
        finally:
            if responded or not self._keys:
                self._number += 1
            self._repeated = not responded
        if response.status in (200, 201):
            self.acknowledged[text] = response.json
        else:
            self.refused.append(response)


class Follower(Background):
    """Polls with the cursor of the last response, across failures."""

    def __init__(self, port: int, auth: str, since: str = "0") -> None:
        super().__init__(Client(port, auth, timeout=20))
        self.cursor = since
        self.seen: list[dict[str, Any]] = []
        self.polls = 0

    def once(self) -> None:
        response = self._client.get(f"{CHATS}?since={self.cursor}&wait=1")
        assert response.status == 200, response
        document = response.json
        self.seen += document["messages"]
        self.cursor = document["meta"]["cursor"]
        self.polls += 1

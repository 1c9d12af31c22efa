"""Clients that notice every error while daemons are restarted, and record a history."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.daemon import CHATS, Client, wait_until
from tests.examples import PAUSE_SECONDS
from tests.history import ACKNOWLEDGED, UNKNOWN, Event, Seen, Sent, Stored, check
from tests.integration.traffic import whole_inbox

SENDERS: Final = 4
POLLERS: Final = 4


class SteadyLoad:
    """Clients that send to themselves and poll all the time, and never repeat a request.

    `connect` makes a client with the value of its Authorization header, or None.
    """

    def __init__(self, connect: Callable[[str | None], Client]) -> None:
        self._connect = connect
        self._ends = threading.Event()
        self.sent = 0
        self.polled = 0
        self.errors: list[str] = []
        self._events: list[Event] = []
        self.names = [f"user{number}" for number in range(SENDERS)]
        client = connect(None)
        self._users = []
        for name in self.names:
            account = {"username": name, "email": f"{name}@example.org", "password": "secret"}
            user_id = client.request("POST", "/api/v1/users/", account).json["id"]
            credentials = {"username": name, "password": "secret"}
            token = client.request("POST", "/api/v1/tokens/", credentials).json["token"]
            self._users.append((user_id, f"Bearer {token}"))
        client.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the clients; their errors are in `errors` afterwards."""
        threads = [threading.Thread(target=self._send, args=user) for user in self._users]
        threads += [
            threading.Thread(target=self._poll, args=self._users[number % SENDERS])
            for number in range(POLLERS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()

    def wait_for_progress(self) -> None:
        """Wait until some more messages are sent."""
        enough = self.sent + 20
        wait_until(lambda: self.sent > enough, 20)

    def verify(self) -> None:
        """Check the history against the inboxes."""
        inboxes = {}
        for user_id, auth in self._users:
            client = self._connect(auth)
            inboxes[user_id] = whole_inbox(client)
            client.close()
        assert check(self._events, inboxes) == []

    def _send(self, user_id: int, auth: str) -> None:
        client = self._connect(auth)
        number = 0
        while not self._ends.is_set():
            number += 1
            text = f"{user_id} {number}"
            began = time.monotonic()
            body = {"user_id": user_id, "message": text}
            found = self._request(client, 201, "POST", CHATS, body)
            route = began, time.monotonic(), user_id, user_id, text
            if found is None:
                self._events.append(Sent(*route, UNKNOWN))
            else:
                self._events.append(Sent(*route, ACKNOWLEDGED, found["seq"], found["sent_at"]))
                self.sent += 1
            self._ends.wait(PAUSE_SECONDS)
        client.close()

    def _poll(self, user_id: int, auth: str) -> None:
        client = self._connect(auth)
        cursor, last = "0", 0
        while not self._ends.is_set():
            began = time.monotonic()
            found = self._request(client, 200, "GET", f"{CHATS}?since={cursor}&wait=1")
            if found is not None:
                messages = [Stored.of(each) for each in found["messages"]]
                times = began, time.monotonic()
                reader = f"user {user_id}"
                self._events.append(Seen(*times, user_id, last, messages, reader=reader))
                last += len(messages)
                cursor = found["meta"]["cursor"]
                self.polled += 1
        client.close()

    def _request(self, client: Client, status: int, *request: Any) -> Any:
        try:
            response = client.request(*request)
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(f"{request[0]}: {error!r}")
            return None
        if response.status != status:
            self.errors.append(f"{request[0]}: {response.status} {response.body!r}")
            return None
        return response.json

"""How long after the 201 of one chatd a poll held at another is answered, on one PostgreSQL.

    python -m bench.two_nodes --here 8080 --there 8081 --sends 500

One sender and one receiver, in threads of one process; times are from the last byte of the 201 to
the last byte of the poll's answer, below 0 when the answer came first.
"""

from __future__ import annotations

import argparse
import http.client
import json
import secrets
import threading
import time
from typing import Any


class Caller:
    """Requests on one kept connection."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; raises `RuntimeError` for anything but success."""
        text = None if body is None else json.dumps(body)
        self._connection.request(method, "/api/v1" + path, text, self._headers)
        answer = self._connection.getresponse()
        found = json.loads(answer.read())
        if answer.status >= 300:
            raise RuntimeError(found)
        return found


def account(port: int) -> tuple[int, str]:
    """The id and a token of a new account."""
    name = secrets.token_hex(8)
    anyone = Caller(port)
    user = anyone.call(
        "POST", "/users/", {"username": name, "email": "a@example.org", "password": name}
    )
    token = anyone.call("POST", "/tokens/", {"username": name, "password": name})
    return user["id"], token["token"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--here", type=int, required=True, help="port of the sender's chatd")
    parser.add_argument("--there", type=int, required=True, help="port of the receiver's chatd")
    parser.add_argument("--sends", type=int, default=500)
    asked = parser.parse_args()
    _, sender = account(asked.here)
    receiver, token = account(asked.there)
    answered: list[float] = []
    waiting = threading.Event()

    def receive() -> None:
        caller = Caller(asked.there, token)
        cursor = "0"
        while len(answered) < asked.sends:
            waiting.set()
            found = caller.call("GET", f"/chats/?since={cursor}&wait=30")
            answered.append(time.perf_counter())
            cursor = found["meta"]["cursor"]

    thread = threading.Thread(target=receive)
    thread.start()
    sends = Caller(asked.here, sender)
    acknowledged = []
    for _ in range(asked.sends):
        waiting.wait()
        waiting.clear()
        time.sleep(0.01)
        sends.call("POST", "/chats/", {"user_id": receiver, "message": "x" * 40})
        acknowledged.append(time.perf_counter())
        while len(answered) < len(acknowledged):
            time.sleep(0.0005)
    thread.join()
    late = sorted(1000 * (b - a) for a, b in zip(acknowledged, answered, strict=True))
    print(
        json.dumps(
            {
                "sends": asked.sends,
                "p50_ms": round(late[len(late) // 2], 2),
                "p99_ms": round(late[int(len(late) * 0.99)], 2),
                "max_ms": round(late[-1], 2),
            }
        )
    )


if __name__ == "__main__":
    main()

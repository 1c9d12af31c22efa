"""Benchmark of delivery between two chatd processes that share a PostgreSQL database.

    python -m bench.two_nodes --here 8080 --there 8081 --sends 500

One sender and one receiver run in threads of one process. Measured is the time from the end of the
201 response of one server to the end of the poll response of the other; it may be negative.
"""

from __future__ import annotations

import argparse
import http.client
import json
import secrets
import threading
import time
from typing import Any


class Client:
    """A client with one persistent connection."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the decoded JSON; raises `RuntimeError` for errors."""
        encoded = None if body is None else json.dumps(body)
        self._connection.request(method, "/api/v1" + path, encoded, self._headers)
        response = self._connection.getresponse()
        decoded = json.loads(response.read())
        if response.status >= 300:
            raise RuntimeError(decoded)
        return decoded


def register(port: int) -> tuple[int, str]:
    """Create an account and return its id and a token."""
    name = secrets.token_hex(8)
    client = Client(port)
    user = client.call(
        "POST", "/users/", {"username": name, "email": "a@example.org", "password": name}
    )
    token = client.call("POST", "/tokens/", {"username": name, "password": name})
    return user["id"], token["token"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--here", type=int, required=True, help="port of the sender's chatd")
    parser.add_argument("--there", type=int, required=True, help="port of the receiver's chatd")
    parser.add_argument("--sends", type=int, default=500)
    options = parser.parse_args()
    _, sender = register(options.here)
    receiver, token = register(options.there)
    received: list[float] = []
    waiting = threading.Event()

    def receive() -> None:
        client = Client(options.there, token)
        cursor = "0"
        while len(received) < options.sends:
            waiting.set()
            page = client.call("GET", f"/chats/?since={cursor}&wait=30")
            received.append(time.perf_counter())
            cursor = page["meta"]["cursor"]

    thread = threading.Thread(target=receive)
    thread.start()
    client = Client(options.here, sender)
    acknowledged = []
    for _ in range(options.sends):
        waiting.wait()
        waiting.clear()
        time.sleep(0.01)
        client.call("POST", "/chats/", {"user_id": receiver, "message": "x" * 40})
        acknowledged.append(time.perf_counter())
        while len(received) < len(acknowledged):
            time.sleep(0.0005)
    thread.join()
    delays = sorted(1000 * (b - a) for a, b in zip(acknowledged, received, strict=True))
    print(
        json.dumps(
            {
                "sends": options.sends,
                "p50_ms": round(delays[len(delays) // 2], 2),
                "p99_ms": round(delays[int(len(delays) * 0.99)], 2),
                "max_ms": round(delays[-1], 2),
            }
        )
    )


if __name__ == "__main__":
    main()

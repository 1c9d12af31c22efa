"""Changes, positions and receipts over two daemons on one PostgreSQL."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.integration.postgres_daemons import (
    Client,
    Daemon,
    eventually,
    registered,
    running,
)
from tests.postgres_server import Server

CHATS = "/api/v1/chats/"
READ = "/api/v1/conversations/read/"
WAKE_SECONDS = 2.0
"""Positions are written once a second; everything else takes milliseconds on an idle machine."""


@pytest.fixture
def daemons(own_server: Server, own_database: str, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Two daemons on one database, with a port each."""
    pair = [Daemon(tmp_path, own_server.url(own_database)) for _ in range(2)]
    with running(*pair):
        yield pair


def changes(client: Client, since: str, wait: float = 0) -> tuple[list[Any], str]:
    status, body = client.call("GET", f"{CHATS}?since={since}&changes=true&wait={wait}")
    assert status == 200, body
    return body["changes"], body["meta"]["cursor"]


def test_devices_at_different_daemons_show_the_same(daemons: list[Daemon]) -> None:
    one, two = (daemon.port for daemon in daemons)
    ann_id, ann = registered(one, "ann")
    bob_id, bob = registered(two, "bob")
    _, cursor = changes(ann, "now")
    with ThreadPoolExecutor(1) as thread:
        for here, there in ((one, two), (two, one)):
            held = thread.submit(changes, ann.at(there), cursor, 20)
            time.sleep(0.3)
            began = time.monotonic()
            status, message = ann.at(here).send(bob_id, "from my phone")
            assert status == 201
            found, cursor = held.result()
            assert found == [{"type": "sent", "message": message}]
            assert time.monotonic() - began < WAKE_SECONDS
            held = thread.submit(changes, ann.at(there), cursor, 20)
            time.sleep(0.3)
            body = {"user_id": ann_id, "seq": message["seq"]}
            assert bob.at(here).call("PUT", READ, body)[0] == 204
            [change], cursor = held.result()
            seq = message["seq"]
            assert change == {"type": "peer", "user_id": bob_id, "delivered": seq, "read": seq}


@pytest.mark.parametrize("killed", ["the recipient's daemon", "the sender's daemon"])
def test_a_receipt_comes_through_a_daemon_that_is_killed(
    daemons: list[Daemon], killed: str
) -> None:
    one, two = (daemon.port for daemon in daemons)
    _, ann = registered(one, "ann")
    bob_id, bob = registered(two, "bob")
    body = {"user_id": bob_id, "message": "hai"}
    path = f"{CHATS}?wait_for=delivered&wait=25"
    with ThreadPoolExecutor(1) as thread:
        headers = {"Idempotency-Key": "once"}
        sending = thread.submit(ann.call, "POST", path, body, **headers)
        _, received = bob.poll("0", 20)
        cursor = received["meta"]["cursor"]
        if killed == "the recipient's daemon":
            # What it may have known is proved again by the cursor.
            daemons[1].end(signal.SIGKILL)
            assert bob.at(one).poll(cursor, 0)[0] == 200
            status, sent = sending.result()
        else:
            daemons[0].end(signal.SIGKILL)
            with pytest.raises((ConnectionError, HTTPException)):
                sending.result()
            assert bob.poll(cursor, 0)[0] == 200
            status, sent = ann.at(two).call("POST", path, body, **headers)
    assert status in (200, 201)
    assert sent == {**received["messages"][0], "delivered": True}
    daemons[0 if killed == "the sender's daemon" else 1].start()


def test_receipts_and_positions_reach_the_other_daemon(daemons: list[Daemon]) -> None:
    one, two = (daemon.port for daemon in daemons)
    ann_id, ann = registered(one, "ann")
    bob_id, bob = registered(two, "bob")
    body = {"user_id": bob_id, "message": "hai"}
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(ann.call, "POST", f"{CHATS}?wait_for=read&wait=25", body)
        _, received = bob.poll("0", 20)
        time.sleep(0.3)
        began = time.monotonic()
        assert bob.call("PUT", READ, {"user_id": ann_id, "seq": 1})[0] == 204
        status, sent = sending.result()
    assert time.monotonic() - began < WAKE_SECONDS
    assert (status, sent) == (201, {**received["messages"][0], "read": True})
    for number in range(3):
        ann.send(bob_id, f"{number}")

    def received_all() -> Any:
        # The other daemon may not have been told of the last ones yet.
        _, found = bob.poll("0", 0)
        return found if len(found["messages"]) == 4 else None

    received = eventually(received_all, 10, "received")
    bob.poll(received["meta"]["cursor"], 0)

    def delivered(port: int) -> int:
        _, body = ann.at(port).call("GET", "/api/v1/conversations/")
        [conversation] = body["conversations"]
        seq: int = conversation["peer_delivered"]
        return seq

    for port in (one, two):
        eventually(partial(lambda at: delivered(at) == 4, port), 10, "delivered")

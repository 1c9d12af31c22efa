"""Daemons that use a transaction pooler for `--db` and a direct connection for `--listen-db`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.postgres_daemons import (
    Client,
    ConcurrentTraffic,
    Daemon,
    eventually,
    polling,
    registered,
    running,
)
from tests.pgbouncer import SIZE, PgBouncer
from tests.postgres_server import Server, connected, rows

WAKE_SECONDS = 5.0
"""A response within this time of the send is not due to the sweep."""
RECOVERY_SECONDS = 10.0


@pytest.fixture(scope="module")
def pooler(own_server: Server) -> Iterator[PgBouncer]:
    pooler = PgBouncer(own_server)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.destroy()


@pytest.fixture
def daemons(
    pooler: PgBouncer, own_server: Server, own_database: str, tmp_path: Path
) -> Iterator[list[Daemon]]:
    """Two daemons behind the pooler."""
    listen = f"--listen-db={own_server.url(own_database)}"
    pair = [Daemon(tmp_path, pooler.url(own_database), listen) for _ in range(2)]
    try:
        with running(*pair):
            yield pair
    finally:
        # Shown with a test that fails.
        print(pooler.log())


def test_a_missing_listen_db_is_reported_in_one_line(
    pooler: PgBouncer, own_database: str, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path, pooler.url(own_database))
    daemon.start(wait=False)
    assert daemon.process is not None
    try:
        assert daemon.process.wait(30) == 1
    finally:
        daemon.end(signal.SIGKILL)
    log = daemon.log.read_text()
    line = "a pooler is in between: give the server itself as --listen-db"
    assert log.count(line) == 1
    assert "Traceback" not in log
    assert "is listening on" not in log


def test_all_operations_work_through_the_pooler(
    daemons: list[Daemon], pooler: PgBouncer, own_server: Server, own_database: str
) -> None:
    one, two = (daemon.port for daemon in daemons)
    ann_id, ann = registered(one, "ann")
    bob_id, bob = registered(two, "bob")
    for here, there in ((one, two), (two, one)):
        with polling(bob.at(there), "now", 25) as response:
            sent = time.monotonic()
            status, message = ann.at(here).send(bob_id, f"from {here}", f"key-{here}")
            assert status == 201
        status, body, responded_at = response
        assert (status, body["messages"]) == (200, [message])
        assert responded_at - sent < WAKE_SECONDS
        # A key works at either daemon, and only for the same text.
        assert ann.at(there).send(bob_id, f"from {here}", f"key-{here}") == (200, message)
        assert ann.at(there).send(bob_id, "another text", f"key-{here}")[0] == 422
    assert bob.at(one).send(ann_id, "a reply")[0] == 201
    for port in (one, two):
        for client, peer in ((ann, bob_id), (bob, ann_id)):
            status, body = client.at(port).call("GET", f"/api/v1/chats/?with={peer}")
            assert status == 200
            texts = [each["message"] for each in body["messages"]]
            assert texts == ["a reply", f"from {two}", f"from {one}"]
        status, body = bob.at(port).call("GET", "/api/v1/chats/?page=2&limit=1")
        assert (status, body["meta"]["count"]) == (200, 2)
    for client, path in ((ann, "/api/v1/tokens/"), (bob, "/api/v1/users/")):
        with polling(client.at(two), "now", 25) as response:
            ended = time.monotonic()
            assert client.at(one).call("DELETE", path)[0] == 204
        assert response[0] == 401
        assert response[2] - ended < WAKE_SECONDS
    # All of this went through the pooler, and clients shared server connections.
    clients = [row for row in pooler.command("SHOW CLIENTS") if own_database in row]
    with connected(own_server.url(own_database)) as db:
        [[count]] = rows(
            db,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND application_name <> 'chatd bus'"
            " AND pid <> pg_backend_pid()",
        )
    assert 0 < count <= SIZE < len(clients) == 8


def test_clients_do_not_notice_reconnections_and_a_restart_of_the_pooler(
    daemons: list[Daemon], pooler: PgBouncer
) -> None:
    ports = [daemon.port for daemon in daemons]
    users = [registered(ports[0], f"user{number}") for number in range(4)]
    with ConcurrentTraffic(ports, users, senders=6) as traffic:

        def continues() -> None:
            before = traffic.acknowledged
            eventually(lambda: traffic.acknowledged > before + 20, RECOVERY_SECONDS, "sends")

        continues()
        for _ in range(3):
            pooler.command("RECONNECT")
            continues()
        for how in (signal.SIGTERM, signal.SIGKILL):
            pooler.stop(how)
            # Polls and sends wait; /readyz reports that the pooler is down.
            for daemon in daemons:
                assert not daemon.ready()
                assert Client(daemon.port).call("GET", "/healthz")[0] == 200
            pooler.start()
            for daemon in daemons:
                eventually(daemon.ready, RECOVERY_SECONDS, "ready again")
            continues()
    traffic.verify(ports[0])
    traffic.verify(ports[1])
    # Statements are repeated on new connections: the clients noticed nothing.
    assert traffic.errors == {}
    for daemon in daemons:
        log = daemon.log.read_text()
        assert "Traceback" not in log
        assert "missed a wake-up" not in log

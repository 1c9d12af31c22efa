"""Workers that tell each other of messages over NATS."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

from bench.processes import free_port
from tests.integration.postgres_daemons import Daemon, eventually, polling, registered, running
from tests.nats_server import NatsServer
from tests.postgres_server import Databases

WAKE_SECONDS = 4.0
"""A response within this time of the send is not due to the sweep."""
PASSWORD = "s3cret"


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        text: str = page.read().decode()
        return text


def test_daemons_on_nats_are_one_system(
    tmp_path: Path, postgres: Databases, postgres_database: str
) -> None:
    server = NatsServer("one", f'authorization {{ user: chatd, password: "{PASSWORD}" }}')
    server.start()
    bus = f"--bus=nats://chatd:{PASSWORD}@{server.address}"
    admin = free_port()
    db = postgres.url(postgres_database)
    one = Daemon(tmp_path, db, bus, f"--admin=tcp:{admin}:interface=127.0.0.1")
    two = Daemon(tmp_path, db, bus)
    try:
        with running(one, two):
            _, ann = registered(one.port, "ann")
            bob_id, bob = registered(two.port, "bob")
            for here, there in ((one, two), (two, one)):
                with polling(bob.at(there.port), "now", 20) as response:
                    sent = time.monotonic()
                    status, message = ann.at(here.port).send(bob_id, "hello")
                    assert status == 201
                status, body, responded_at = response
                assert (status, body["messages"]) == (200, [message])
                assert responded_at - sent < WAKE_SECONDS
            with polling(ann.at(two.port), "now", 20) as response:
                assert ann.at(one.port).call("DELETE", "/api/v1/tokens/")[0] == 204
            assert response[0] == 401
            listening = postgres.admin(
                "SELECT FROM pg_stat_activity WHERE application_name = 'chatd bus'"
                " AND datname = %s",
                postgres_database,
            )
            assert listening == []
            # Heard by its next heartbeat if it connected first.
            eventually(lambda: "chatd_bus_peers 1.0" in metrics(admin), 10, "heard")
            server.kill()
            eventually(lambda: not one.ready(), 10, "not ready")
            server.start()
            eventually(one.ready, 10, "ready")
    finally:
        server.destroy()
    for daemon in (one, two):
        assert PASSWORD not in daemon.log.read_text()

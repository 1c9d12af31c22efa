"""Several daemons on one PostgreSQL act as one system, across crashes of any part."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.processes import free_port
from chatd.conformance.stream_reader import MEDIA_TYPES
from tests.examples import examples
from tests.integration.postgres_daemons import (
    Client,
    ConcurrentTraffic,
    Daemon,
    eventually,
    polling,
    registered,
    running,
)
from tests.integration.stream_client import Stream
from tests.postgres_server import Databases, Server

WAKE_SECONDS = 1.0
"""A response within this time of the send is not due to the sweep. An idle machine needs
milliseconds."""
RECOVERY_SECONDS = 5.0
WORKERS = examples(2, deep=3)
"""Each imports chatd anew, which takes longer than all that it does then."""


@pytest.fixture
def daemons(own_server: Server, own_database: str, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Two daemons on one database, with a port each."""
    pair = [Daemon(tmp_path, own_server.url(own_database)) for _ in range(2)]
    with running(*pair):
        yield pair


def test_a_message_to_one_wakes_a_poll_at_the_other(daemons: list[Daemon]) -> None:
    one, two = (daemon.port for daemon in daemons)
    _, ann = registered(one, "ann")
    bob_id, bob = registered(two, "bob")
    for here, there in ((one, two), (two, one)):
        with polling(bob.at(there), "now", 20) as response:
            sent = time.monotonic()
            status, message = ann.at(here).send(bob_id, "hello")
            assert status == 201
        status, body, responded_at = response
        assert status == 200
        assert body["messages"] == [message]
        assert responded_at - sent < WAKE_SECONDS
        # A cursor of one daemon is valid at the other.
        status, body = bob.at(here).poll(body["meta"]["cursor"], 0)
        assert (status, body["messages"]) == (200, [])


def test_revocations_and_deletions_reach_the_other_daemon(
    daemons: list[Daemon],
) -> None:
    one, two = (daemon.port for daemon in daemons)
    _, ann = registered(one, "ann")
    _, bob = registered(one, "bob")
    for client, path in ((ann, "/api/v1/tokens/"), (bob, "/api/v1/users/")):
        assert client.at(two).call("GET", "/api/v1/users/")[0] == 200
        with polling(client.at(two), "now", 20) as response:
            ended = time.monotonic()
            assert client.at(one).call("DELETE", path)[0] == 204
        assert response[0] == 401
        assert response[2] - ended < WAKE_SECONDS
        assert client.at(two).call("GET", "/api/v1/users/")[0] == 401


class PasswordClient(Client):
    """Ann with her password instead of a token."""

    def at(self, port: int) -> Client:
        return PasswordClient(port)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        basic = f"Basic {b64encode(b'ann:hello').decode()}"
        return super().call(method, path, body, Authorization=basic, **headers)


def test_a_new_password_ends_the_other_sessions_at_the_other_daemon(
    daemons: list[Daemon],
) -> None:
    one, two = (daemon.port for daemon in daemons)
    _, ann = registered(one, "ann")
    log_in = {"username": "ann", "password": "hello"}
    other = Client(one, ann.call("POST", "/api/v1/tokens/", log_in)[1]["token"])
    basic = PasswordClient(one)
    change = {"current_password": "hello", "password": "very secret"}
    with (
        polling(other.at(two), "now", 20) as token_poll,
        polling(basic.at(two), "now", 20) as basic_poll,
        Stream(two, f"Bearer {ann.token}", MEDIA_TYPES[0], "now"),
    ):
        changed = time.monotonic()
        assert ann.at(one).call("PATCH", "/api/v1/users/", change)[0] == 200
    for response in (token_poll, basic_poll):
        assert response[0] == 401
        assert response[2] - changed < WAKE_SECONDS
    for client in (other, basic):
        assert client.at(two).call("GET", "/api/v1/users/")[0] == 401
    assert ann.at(two).call("GET", "/api/v1/users/")[0] == 200


def test_edits_and_blocks_at_one_take_effect_at_the_other(daemons: list[Daemon]) -> None:
    one, two = (daemon.port for daemon in daemons)
    ann_id, ann = registered(one, "ann")
    bob_id, bob = registered(one, "bob")
    chats = "/api/v1/chats/"
    for number in range(1, 6):
        ann.send(bob_id, "old")
        # From the memory of the other daemon, as soon as it is there.
        eventually(
            lambda: bob.at(two).poll("0", 5)[1]["messages"][-1]["message"] == "old",
            WAKE_SECONDS,
            "the message reaches the other daemon",
        )
        body = {"user_id": bob_id, "seq": number, "message": "new"}
        status, edited = ann.call("PATCH", chats, body)
        assert status == 200
        eventually(
            lambda: bob.at(two).poll("0", 0)[1]["messages"][-1]["message"] == "new",
            WAKE_SECONDS,
            "the edit reaches the other daemon",
        )
        # What is not from memory is never behind.
        assert bob.at(two).call("GET", chats)[1]["messages"][0] == edited
    assert bob.at(two).call("PUT", "/api/v1/blocks/", {"user_id": ann_id})[0] == 204
    assert ann.send(bob_id, "x")[1]["code"] == "blocked"
    assert bob.call("DELETE", f"/api/v1/blocks/?user_id={ann_id}")[0] == 204
    assert ann.at(two).send(bob_id, "x")[0] == 201


def test_streams_at_one_show_what_happens_at_the_other(daemons: list[Daemon]) -> None:
    one, two = (daemon.port for daemon in daemons)
    bob_id, bob = registered(one, "bob")
    with ExitStack() as opened:
        streams = [
            opened.enter_context(Stream(two, f"Bearer {bob.token}", each, "0"))
            for each in MEDIA_TYPES
        ]
        for number in range(3):
            sent = time.monotonic()
            status, message = bob.at(one).send(bob_id, f"{number}")
            assert status == 201
            for stream in streams:
                [event] = stream.messages(1)
                assert event.document == message
            assert time.monotonic() - sent < WAKE_SECONDS
        ended = time.monotonic()
        assert bob.at(one).call("DELETE", "/api/v1/tokens/")[0] == 204
        for stream in streams:
            end = stream.next()
            assert end is not None
            assert (end.name, end.document["status"]) == ("error", 401)
            assert stream.next() is None
        assert time.monotonic() - ended < WAKE_SECONDS


def test_notifications_lost_while_not_listening_are_compensated(
    daemons: list[Daemon], own_server: Server, own_database: str
) -> None:
    one, two = (daemon.port for daemon in daemons)
    _, ann = registered(one, "ann")
    bob_id, bob = registered(two, "bob")
    _, cat = registered(two, "cat")
    databases = Databases(own_server.url())
    with polling(bob.at(two), "now", 20) as response, polling(cat.at(two), "now", 20) as revoked:
        began = time.monotonic()
        assert databases.terminate(own_database, "chatd bus") == 2
        assert ann.at(one).send(bob_id, "meanwhile")[0] == 201
        assert cat.at(one).call("DELETE", "/api/v1/tokens/")[0] == 204
    assert [each["message"] for each in response[1]["messages"]] == ["meanwhile"]
    assert response[2] - began < RECOVERY_SECONDS
    assert revoked[0] == 401
    assert revoked[2] - began < RECOVERY_SECONDS
    for daemon in daemons:
        eventually(daemon.ready, RECOVERY_SECONDS, "ready again")


def test_one_of_two_is_killed_under_load(
    daemons: list[Daemon], own_server: Server, own_database: str, tmp_path: Path
) -> None:
    one, two = daemons
    users = [registered(one.port, f"user{number}") for number in range(4)]
    with ConcurrentTraffic([one.port, two.port], users, senders=6) as traffic:
        traffic.wait_for_progress()
        one.end(signal.SIGKILL)
        traffic.wait_for_progress()
        before = traffic.acknowledged
        again = Daemon(tmp_path, own_server.url(own_database), port=one.port)
        again.start()
        traffic.wait_for_progress()
    try:
        assert traffic.acknowledged > before > 0
        traffic.verify(two.port)
        traffic.verify(again.port)
    finally:
        again.end()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_server_is_restarted_under_load(
    daemons: list[Daemon], own_server: Server, how: signal.Signals
) -> None:
    ports = [daemon.port for daemon in daemons]
    users = [registered(ports[0], f"user{number}") for number in range(4)]
    with ConcurrentTraffic(ports, users, senders=6) as traffic:
        traffic.wait_for_progress()
        own_server.stop(how)
        for daemon in daemons:
            assert not daemon.ready()
            status, body = Client(daemon.port).call("GET", "/healthz")
            assert status == 200, body
        own_server.start()
        back = time.monotonic()
        before = traffic.acknowledged
        for daemon in daemons:
            eventually(daemon.ready, RECOVERY_SECONDS, "ready again")
        eventually(lambda: traffic.acknowledged > before + 12, RECOVERY_SECONDS, "sends")
        assert time.monotonic() - back < RECOVERY_SECONDS
        traffic.wait_for_progress()
    traffic.verify(ports[0])
    traffic.verify(ports[1])


def test_backends_are_terminated_under_load(
    daemons: list[Daemon], own_server: Server, own_database: str
) -> None:
    ports = [daemon.port for daemon in daemons]
    users = [registered(ports[0], f"user{number}") for number in range(4)]
    databases = Databases(own_server.url())
    with ConcurrentTraffic(ports, users, senders=6) as traffic:
        for _ in range(8):
            time.sleep(0.1)
            databases.terminate(own_database)
        traffic.wait_for_progress()
    traffic.verify(ports[0])
    # Statements are repeated on new connections: the clients noticed nothing.
    assert traffic.errors == {}


# --workers


@pytest.fixture
def workers(
    own_server: Server, own_database: str, tmp_path: Path
) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(*options: str, wait: bool = True, db: str | None = None) -> Daemon:
        daemon = Daemon(tmp_path, db or own_server.url(own_database), *options)
        started.append(daemon)
        daemon.start(wait)
        return daemon

    yield start
    for daemon in started:
        daemon.end()
        # Shown with a test that fails.
        print(daemon.log.read_text())


def test_workers_share_the_port_and_are_restarted(
    workers: Callable[..., Daemon],
) -> None:
    admin = free_port(WORKERS)
    daemon = workers(f"--workers={WORKERS}", f"--admin=tcp:{admin}:interface=127.0.0.1")
    for number in range(WORKERS):
        eventually(partial(daemon.ready, admin + number), 30, "a worker")
    users = [registered(daemon.port, f"user{number}") for number in range(4)]
    pids = daemon.children()
    assert len(pids) == WORKERS
    with ConcurrentTraffic([daemon.port], users, senders=6) as traffic:
        traffic.wait_for_progress()
        os.kill(pids[1], signal.SIGKILL)
        eventually(lambda: len(set(daemon.children()) - set(pids)) == 1, 30, "another worker")
        for number in range(WORKERS):
            eventually(partial(daemon.ready, admin + number), 30, "a worker")
        traffic.wait_for_progress()
    traffic.verify(daemon.port)
    _, ann = users[0]
    with polling(ann, "now", 20) as response:
        eventually(
            lambda: any("\nchatd_polls_held 1.0\n" in metrics(admin + n) for n in range(WORKERS)),
            10,
            "a held poll",
        )
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        # The supervisor and its workers.
        reloaded = "the settings are reloaded"
        eventually(lambda: daemon.log.read_text().count(reloaded) == 1 + WORKERS, 10, "a reload")
        daemon.process.send_signal(signal.SIGTERM)
    # The poll was answered, not disconnected.
    assert response[0] == 200
    assert daemon.process.wait(30) == 0
    log = daemon.log.read_text()
    for number in range(1, WORKERS + 1):
        origin = f"[chatd.process.service#info, worker {number}]"
        assert re.search(rf"{re.escape(origin)} chatd .* is listening", log)
        assert f"{origin} chatd has stopped" in log
    assert len(re.findall(r"worker [0-9] was ended by SIGKILL and is started again", log)) == 1
    assert "Traceback" not in log


def test_workers_stop_when_the_supervisor_is_killed(workers: Callable[..., Daemon]) -> None:
    daemon = workers("--workers=2")
    daemon.end(signal.SIGKILL)

    def unreachable() -> bool:
        try:
            daemon.ready()
        except OSError:
            return True
        return False

    eventually(unreachable, 15, "the workers are gone")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--workers=2"], "worker [12] ended with status 1"),
        ([], "cannot reach the database postgresql://u@127"),
    ],
)
def test_an_unreachable_database_is_reported_in_one_line_without_the_password(
    workers: Callable[..., Daemon], options: list[str], line: str
) -> None:
    daemon = workers(*options, db="postgresql://u:s3cret@127.0.0.1:1/d", wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    log = daemon.log.read_text()
    assert len(re.findall(line, log)) == 1, log
    assert "s3cret" not in log
    assert "Traceback" not in log


def metrics(admin: int) -> str:
    """The metrics of an admin listener."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics") as response:
        text: str = response.read().decode()
    return text


def test_metrics_cover_connections_and_the_bus(workers: Callable[..., Daemon]) -> None:
    admin = free_port()
    daemon = workers(f"--admin=tcp:{admin}:interface=127.0.0.1")
    assert daemon.ready(admin)
    text = metrics(admin)
    assert "\nchatd_postgres_connections 4.0\n" in text
    assert "\nchatd_postgres_reconnects_total 0.0\n" in text
    assert "\nchatd_postgres_pool_waiting 0.0\n" in text
    # On a busy machine the first statements wait for the pool's first connections.
    assert "\nchatd_postgres_pool_wait_seconds_count " in text
    assert "\nchatd_bus_lag_seconds_count 1.0\n" in text

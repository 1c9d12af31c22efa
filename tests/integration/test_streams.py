"""Streams of a real daemon: clients that stall, restarts, and TLS."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.processes import free_port
from chatd.conformance.stream_reader import JSON_LINES, MEDIA_TYPES, SERVER_SENT_EVENTS, Event
from tests import history
from tests.daemon import CHATS, LOST, Daemon
from tests.integration.certificate import write_certificate
from tests.integration.stream_client import Stream
from tests.integration.traffic import Sender, whole_inbox

DRAIN_SECONDS = 5.0

LARGE = "x" * 16_000
COUNT = 300
STALLED = 8
STREAM_BYTES = 1 << 20
"""What a stalled stream may cost: some buffers. What it has not read is 4.8 MB."""


class Service(NamedTuple):
    """The daemon of all tests, and its TLS port."""

    daemon: Daemon
    tls_port: int
    trusted: ssl.SSLContext


class User(NamedTuple):
    """A user of the daemon."""

    id: int
    auth: str


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("streams")
    pem = folder / "server.pem"
    write_certificate(pem)
    port, tls_port = free_port(), free_port()
    listen = [
        *("--listen", f"tcp:{port}:interface=127.0.0.1"),
        *("--listen", f"ssl:{tls_port}:privateKey={pem}:certKey={pem}:interface=127.0.0.1"),
    ]
    with Daemon(folder, *listen) as daemon:
        yield Service(daemon, tls_port, ssl.create_default_context(cafile=pem))


def new_user(service: Service, name: str) -> User:
    """Create an account and log in."""
    return User(service.daemon.register(name), service.daemon.log_in(name))


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    match = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def send_large(service: Service, user: User) -> None:
    """Send large messages from a user to themselves."""
    client = service.daemon.client(user.auth)
    for number in range(COUNT):
        body = {"user_id": user.id, "message": f"{number} {LARGE}"}
        assert client.request("POST", CHATS, body).status == 201


@pytest.mark.parametrize(
    ("name", "media_type", "tls"), [("ann", JSON_LINES, False), ("bob", SERVER_SENT_EVENTS, True)]
)
def test_a_stalled_client_costs_little_and_loses_nothing(
    service: Service, name: str, media_type: str, tls: bool
) -> None:
    user = new_user(service, name)
    # Sends are not what is measured.
    send_large(service, new_user(service, f"{name}s-friend"))
    with ExitStack() as opened:
        streams = [
            opened.enter_context(
                Stream(service.tls_port, user.auth, media_type, "0", service.trusted)
                if tls
                else Stream(service.daemon.port, user.auth, media_type, "0")
            )
            for _ in range(STALLED)
        ]
        before = resident_bytes(service.daemon.pid)
        send_large(service, user)
        growth = resident_bytes(service.daemon.pid) - before
        # The cache of inboxes keeps the messages once.
        assert growth < COUNT * len(LARGE) + STALLED * STREAM_BYTES
        for stream in streams:
            messages = [event.document for event in stream.messages(COUNT)]
            assert [each["seq"] for each in messages] == list(range(1, COUNT + 1))
            assert [each["message"] for each in messages] == [
                f"{number} {LARGE}" for number in range(COUNT)
            ]


def follow(stream: Stream, found: list[Event]) -> None:
    """Read messages until the stream is cut."""
    while True:
        found += stream.messages(1)


def test_streams_continue_after_kills(service: Service) -> None:
    user = new_user(service, "cat")
    daemon = service.daemon
    events: list[history.Event] = []
    sender = Sender(daemon.port, user.auth, user.id, "cat", [user.id], keys=True, events=events)
    found: list[Event] = []
    since = "0"
    sender.start()
    for media_type in MEDIA_TYPES:
        with Stream(daemon.port, user.auth, media_type, since) as stream:
            found += stream.messages(50)
            daemon.kill()
            with pytest.raises(LOST):
                follow(stream, found)
        since = found[-1].cursor
        daemon.start()
    sender.stop()
    stored = whole_inbox(daemon.client(user.auth))
    with Stream(daemon.port, user.auth, JSON_LINES, since) as stream:
        found += stream.messages(len(stored) - len(found))
    seen = [history.Stored.of(event.document) for event in found]
    now = time.monotonic()
    events.append(history.Seen(now, now, user.id, 0, seen, reader="streams"))
    assert history.check(events, {user.id: stored}, ["streams"]) == []


def test_a_stopping_daemon_drains_streams_which_continue_after_it(service: Service) -> None:
    user = new_user(service, "dan")
    daemon = service.daemon
    client = daemon.client(user.auth)
    with ExitStack() as opened:
        streams = [
            opened.enter_context(Stream(daemon.port, user.auth, each, "0")) for each in MEDIA_TYPES
        ]
        body = {"user_id": user.id, "message": "before"}
        sent = [client.request("POST", CHATS, body).json]
        last = [stream.messages(1)[0] for stream in streams]
        assert [event.document for event in last] == sent * 2
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < DRAIN_SECONDS
        for stream in streams:
            end = stream.next()
            assert end is not None
            assert end.name == "drain"
            assert end.document["retry_after"] > 0
            assert stream.next() is None
    daemon.start()
    client.close()
    sent.append(client.request("POST", CHATS, {**body, "message": "after"}).json)
    for event, media_type in zip(last, MEDIA_TYPES, strict=True):
        with Stream(daemon.port, user.auth, media_type, event.cursor) as stream:
            assert [each.document for each in stream.messages(1)] == sent[1:]

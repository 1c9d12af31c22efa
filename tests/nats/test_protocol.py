"""The NATS protocol in memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from chatd.nats.address import Address, Server
from chatd.nats.protocol import MAX_LINE_BYTES, Info, NatsError, NatsProtocol
from tests.doubles import result_of
from tests.nats.server import FakeServer


class Client:
    """A handler that records, and its connection."""

    def __init__(self, server: FakeServer, **login: Any) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.infos: list[Info] = []
        self.server = server
        self.protocol = NatsProtocol(
            Address((Server("a", 1),), **login),
            self,
            lambda transport: transport.startTLS("options"),
            "1.0",
        )
        server.connect(Factory.forProtocol(lambda: self.protocol))

    def on_message(self, sid: bytes, payload: bytes) -> None:
        self.messages.append((sid, payload))

    def on_info(self, info: Info) -> None:
        self.infos.append(info)

    def reason(self) -> str:
        """Why the connection was closed."""
        return result_of(self.protocol.closed)


def failure_of(deferred: Deferred[None]) -> str:
    with pytest.raises(NatsError) as failed:
        result_of(deferred)
    return str(failed.value)


def test_logging_in() -> None:
    client = Client(FakeServer(), user="u", password="p")
    result_of(client.protocol.ready)
    options = client.server.options
    assert options["verbose"] is options["echo"] is options["tls_required"] is False
    assert (options["user"], options["pass"]) == ("u", "p")
    assert "auth_token" not in options
    assert Client(FakeServer(), token="t").server.options["auth_token"] == "t"
    # Only the fields that are used are looked at.
    assert client.infos == [Info()]


def test_subscriptions_and_publications() -> None:
    client = Client(FakeServer())
    client.protocol.subscribe([(b"a.1", b"1"), (b"a.2", b"2")])
    assert client.server.subscribed == {b"a.1": b"1", b"a.2": b"2"}
    client.protocol.publish([(b"a.1", b"x\r\nPING\r\n"), (b"a.2", b"")])
    assert client.server.published == [(b"a.1", b"x\r\nPING\r\n"), (b"a.2", b"")]
    client.protocol.unsubscribe([b"1"])
    assert client.server.subscribed == {b"a.2": b"2"}
    result_of(client.protocol.ping())


@given(st.data())
def test_messages_arrive_however_the_bytes_are_split(data: st.DataObject) -> None:
    client = Client(FakeServer())
    messages = data.draw(st.lists(st.tuples(st.sampled_from([b"1", b"h"]), st.binary(max_size=20))))
    stream = b"".join(
        [
            b"MSG s %b %d\r\n%b\r\nPING\r\n+OK\r\n" % (sid, len(payload), payload)
            if len(payload) % 2
            else b"MSG s %b reply %d\r\n%b\r\n" % (sid, len(payload), payload)
            for sid, payload in messages
        ]
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        client.server.send(stream[begin:end])
    assert client.messages == messages


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"PONG\r\n",
        b"MSG\r\n",
        b"MSG a\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 999999999999\r\n",
        b"MSG a 1 1\r\nxyz\r\n",
        b"MSG a b c d 1\r\nx\r\n",
        b"INFO\r\n",
        b"INFO []\r\n",
        b'INFO {"max_payload":"x"}\r\n',
        b"x" * (MAX_LINE_BYTES + 1),
        b"\xff\r\n",
    ],
)
def test_what_is_no_nats_closes_the_connection(data: bytes) -> None:
    client = Client(FakeServer())
    pong = client.protocol.ping()
    client.server.stopped = True
    unanswered = client.protocol.ping()
    client.server.send(data if data != b"PONG\r\n" else b"PONG\r\nPONG\r\n")
    assert client.reason() == "what the server sends is not NATS"
    result_of(pong)
    if data != b"PONG\r\n":
        assert "not NATS" in failure_of(unanswered)
    assert client.messages == []
    # Nothing is sent any more, and nothing fails.
    client.protocol.publish([(b"a", b"x")])
    assert client.server.published == []
    assert failure_of(client.protocol.ping()) == "the connection is closed"


def test_errors_of_the_server_close_the_connection() -> None:
    server = FakeServer()
    server.stopped = True
    client = Client(server)
    server.tell_info()
    server.send(b"-ERR 'Authorization\x1b[31mViolation'\r\n")
    assert failure_of(client.protocol.ready) == "the server says 'Authorization [31mViolation'"


def test_the_server_closes_the_connection() -> None:
    server = FakeServer()
    client = Client(server)
    server.close()
    assert "closed cleanly" in client.reason()
    server.stopped = True
    client = Client(server)
    server.close()
    assert "closed cleanly" in failure_of(client.protocol.ready)


@pytest.mark.parametrize("info", [{"tls_required": True}, {"tls_available": True}])
def test_tls_begins_before_the_login(info: dict[str, bool]) -> None:
    client = Client(FakeServer(**info), tls=True, token="s3cret")
    assert client.server.transport is not None
    assert client.server.transport.tls == "options"
    assert client.server.options["tls_required"] is True


def test_a_server_that_requires_tls_gets_it() -> None:
    client = Client(FakeServer(tls_required=True))
    assert client.server.transport is not None
    assert client.server.transport.tls == "options"
    assert Client(FakeServer(tls_available=True)).server.transport.tls is None  # type: ignore[union-attr]


def test_the_login_is_not_sent_without_tls() -> None:
    client = Client(FakeServer(), tls=True, token="s3cret")
    assert failure_of(client.protocol.ready) == "the server does not offer TLS"
    assert client.server.options == {}


def test_nothing_is_believed_that_came_before_tls() -> None:
    server = FakeServer()
    server.stopped = True
    client = Client(server)
    server.send(b'INFO {"tls_required":true}\r\nMSG a 1 1\r\nx\r\n')
    assert client.messages == []
    assert "not NATS" in failure_of(client.protocol.ready)

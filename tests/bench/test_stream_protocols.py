"""What each server sends over a stream is read as messages, however it arrives."""

import socket
from collections.abc import Callable

import pytest

from bench.centrifuge import CentrifugeStream
from bench.chat_api import read_lines
from bench.delivery_check import Received
from bench.faye import FayeStream
from bench.nchan import read_events
from bench.protocols import Stream, UnexpectedResponse
from bench.websocket import frame, split_frame
from bench.xmpp import XmppStream, split_stanza

Opened = Callable[[socket.socket], Stream]


def server_frame(text: bytes) -> bytes:
    if len(text) < 126:
        return bytes((0x81, len(text))) + text
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


FAYE = server_frame(b'[{"channel":"/x/1","data":{"m":"one"},"id":"1"}]') + server_frame(
    b'[{"channel":"/x/1","data":{"m":"two%b"},"id":"1"}]' % (b"x" * 200)
)
CENTRIFUGE = server_frame(
    b'{"result":{"channel":"x1","data":{"data":{"m":"one"}}}}\n'
    b'{"result":{"channel":"x1","data":{"data":{"m":"two%b"}}}}' % (b"x" * 200)
)
XMPP = (
    b"<presence from='u1@localhost/a'/>"
    b"<message to='u1@localhost' id='m1'><body>one</body><stanza-id id='2'/></message>"
    b"<message to='u1@localhost' id='m2'><body>two%b</body></message>" % (b"x" * 200)
)


@pytest.mark.parametrize(
    ("opened", "data"),
    [(FayeStream, FAYE), (CentrifugeStream, CENTRIFUGE), (XmppStream, XMPP)],
)
def test_messages_are_read_once_and_in_order(opened: Opened, data: bytes) -> None:
    with socket.socket() as endpoint:
        for size in (1, 7, 100, len(data)):
            stream = opened(endpoint)
            found: list[Received] = []
            for at in range(0, len(data), size):
                found += stream.receive(data[at : at + size])
            assert found == [Received("one", None), Received("two" + "x" * 200, None)]


def test_lines_of_chatd_are_messages_or_keep_alives() -> None:
    line = b'{"cursor":"e-7","message":{"seq":7,"sent_by":1,"message":"one"}}'
    assert read_lines([b'{"keepalive":true}', line]) == [Received("one", 7)]


@pytest.mark.parametrize(
    "line",
    [
        b'{"drain":true,"retry_after":3}',
        b'{"superseded":true}',
        b'{"error":{"status":401}}',
        b"{}",
    ],
)
def test_a_line_that_ends_a_stream_is_an_error(line: bytes) -> None:
    with pytest.raises(UnexpectedResponse):
        read_lines([line])


def test_events_of_nchan_are_messages() -> None:
    assert read_events([b"id: 17:0\ndata: one"]) == [Received("one", None)]
    with pytest.raises(UnexpectedResponse):
        read_events([b"event: closed"])


def test_a_failure_in_a_frame_of_faye_is_an_error() -> None:
    failure = server_frame(b'[{"channel":"/meta/connect","successful":false,"error":"401::"}]')
    with socket.socket() as endpoint, pytest.raises(UnexpectedResponse):
        FayeStream(endpoint).receive(failure)


def test_frames_have_short_and_longer_texts() -> None:
    assert frame("ab") == b"\x81\x82\0\0\0\0ab"
    assert frame("x" * 200) == b"\x81\xfe\x00\xc8\0\0\0\0" + b"x" * 200
    data = server_frame(b"ab")
    assert [split_frame(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert split_frame(data + b"more") == (200, b"", b"ab", len(data))
    with pytest.raises(UnexpectedResponse):
        split_frame(b"\x88\x02\x03\xe8")


def test_a_stanza_is_split_off_when_complete() -> None:
    pong = b"<iq type='result' id='p1' to='s0@localhost/ab' from='localhost'/>"
    error = b"<iq type='error' id='p1'><error type='cancel'/></iq>"
    for stanza in (pong, error):
        for end in range(len(stanza)):
            assert split_stanza(stanza[:end]) is None
        assert split_stanza(stanza + b"<me") == (200, b"", stanza, len(stanza))

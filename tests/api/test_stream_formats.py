"""Which stream `Accept` asks for, and how its events are written."""

from __future__ import annotations

import json

import pytest

from chatd.api.problems import problem
from chatd.api.stream_formats import (
    JSON_LINES,
    SERVER_SENT_EVENTS,
    StreamFormat,
    negotiate,
)
from chatd.model import Cursor

CURSOR = Cursor("abcdefgh", 7, 255)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ([], None),
        ([""], None),
        (["*/*"], None),
        (["text/*"], None),
        (["application/*"], None),
        (["application/json"], None),
        (["text/event-streams"], None),
        (["text/event-stream"], SERVER_SENT_EVENTS),
        (["TEXT/Event-Stream"], SERVER_SENT_EVENTS),
        (["text/event-stream;charset=utf-8"], SERVER_SENT_EVENTS),
        (["application/x-ndjson"], JSON_LINES),
        (["text/html, text/event-stream"], SERVER_SENT_EVENTS),
        (["text/html", "text/event-stream"], SERVER_SENT_EVENTS),
        (["text/event-stream, */*"], SERVER_SENT_EVENTS),
        (["*/*, text/event-stream"], SERVER_SENT_EVENTS),
        (["text/event-stream;q=0"], None),
        (["text/event-stream ; q=0.5 , application/json;q=0.4"], SERVER_SENT_EVENTS),
        (["text/event-stream;q=0.5, application/json"], None),
        (["text/event-stream;q=0.5, */*;q=0.6"], None),
        (["text/event-stream, application/json"], SERVER_SENT_EVENTS),
        (["application/json, text/event-stream"], None),
        (["application/x-ndjson;q=0.9, text/event-stream;q=1.0"], SERVER_SENT_EVENTS),
        (["application/x-ndjson, text/event-stream"], JSON_LINES),
        (["text/event-stream;q=nonsense"], SERVER_SENT_EVENTS),
        (["text/event-stream" + ",a" * 900], SERVER_SENT_EVENTS),
        (["text/event-stream" + ",a" * 1000], None),
        (["text/event-stream", *["a" * 200] * 10], None),
    ],
)
def test_the_format_that_is_wanted(accept: list[str], wanted: StreamFormat | None) -> None:
    assert negotiate([value.encode() for value in accept]) is wanted


def test_server_sent_events() -> None:
    events = SERVER_SENT_EVENTS
    assert events.opening(CURSOR) == b"retry: 2000\nid: abcdefgh-7-ff\n\n"
    assert events.message(b"abcdefgh", 8, 255, b"", b"{}") == (
        b"event: message\nid: abcdefgh-8-ff\ndata: {}\n\n"
    )
    assert events.change(b"abcdefgh", 8, 255, b".5", b"{}") == (
        b"event: change\nid: abcdefgh-8-ff.5\ndata: {}\n\n"
    )
    assert events.keep_alive == b": keepalive\n\n"
    assert events.drain(3) == (
        b'event: drain\nretry: 3000\ndata: {"drain":true,"retry_after":3}\n\n'
    )
    assert events.superseded() == (
        b'event: superseded\nretry: 30000\ndata: {"superseded":true}\n\n'
    )
    refusal = problem(401, "unauthorized", "no")
    head, data = events.error(refusal).split(b"\ndata: ")
    assert head == b"event: error"
    assert data == refusal + b"\n"


def test_lines_of_json() -> None:
    lines = JSON_LINES
    refusal = problem(401, "unauthorized", "no")
    events = (
        (lines.opening(CURSOR), {"keepalive": True}),
        (lines.keep_alive, {"keepalive": True}),
        (
            lines.message(b"abcdefgh", 8, 255, b"", b"{}"),
            {"cursor": "abcdefgh-8-ff", "message": {}},
        ),
        (
            lines.message(b"abcdefgh", 8, 255, b".5", b"{}"),
            {"cursor": "abcdefgh-8-ff.5", "message": {}},
        ),
        (
            lines.change(b"abcdefgh", 8, 255, b".5", b"{}"),
            {"cursor": "abcdefgh-8-ff.5", "change": {}},
        ),
        (lines.drain(3), {"drain": True, "retry_after": 3}),
        (lines.superseded(), {"superseded": True}),
        (lines.error(refusal), {"error": json.loads(refusal)}),
    )
    for event, document in events:
        assert event.endswith(b"\n")
        assert event.count(b"\n") == 1
        assert json.loads(event) == document

"""`EventParser`: the same events from both formats, however they are cut."""

from __future__ import annotations

import pytest

from chatd.conformance.stream_reader import JSON_LINES, SERVER_SENT_EVENTS, Event, EventParser

EVENTS = b"""retry: 2000
id: e-0

: keepalive

event: message\r
id: e-1\r
data: {"seq":1,"message":"\xc3\xa9"}\r
\r
id: e-2
data: {"seq":2,
data:"message":""}

event: drain
retry: 3000
data: {"drain":true,"retry_after":3}

event: error
data: {"status":401}

event: message
id: e-3
data: {"seq":3}
"""

LINES = b"""{"keepalive":true}
{"cursor":"e-1","message":{"seq":1,"message":"\xc3\xa9"}}
{"cursor":"e-2","message":{"seq":2,"message":""}}
{"drain":true,"retry_after":3}
{"error":{"status":401}}
{"cursor":"e-3","message":{"seq":3}}"""

NEWS = [
    Event("message", {"seq": 1, "message": "é"}, "e-1"),
    Event("message", {"seq": 2, "message": ""}, "e-2"),
    Event("drain", {"drain": True, "retry_after": 3}, "e-2"),
    Event("error", {"status": 401}, "e-2"),
]
"""Without the last one, which is incomplete."""


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize(
    ("media_type", "body", "first"),
    [
        (
            SERVER_SENT_EVENTS,
            EVENTS,
            [Event("opening", None, "e-0"), Event("keepalive", None, "e-0")],
        ),
        (JSON_LINES, LINES, [Event("keepalive", {"keepalive": True}, "")]),
    ],
)
def test_events_are_found_however_the_body_is_cut(
    media_type: str, body: bytes, first: list[Event], size: int
) -> None:
    parser = EventParser(media_type)
    found: list[Event] = []
    for start in range(0, len(body), size):
        found += parser.feed(body[start : start + size])
    assert found == first + NEWS


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (SERVER_SENT_EVENTS, b"data: {\n\n"),
        (JSON_LINES, b"{\n"),
        (JSON_LINES, b"[]\n"),
        (JSON_LINES, b"{}\n"),
    ],
)
def test_what_is_no_event_is_an_error(media_type: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting property name|not an event"):
        EventParser(media_type).feed(body)

"""The parser of server-sent events, in the browser that runs it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.pages import PICTURE, Page

PARSE = """
const [encoded, done] = arguments;
const bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
import("/web/event_stream.js").then(({ EventStreamParser }) => {
  const parse = (...chunks) => {
    const parser = new EventStreamParser();
    const events = chunks.flatMap((chunk) => parser.push(chunk));
    return JSON.stringify({ events, id: parser.lastEventId, retry: parser.retry });
  };
  const results = new Set([parse(bytes), parse(...[...bytes].map((each) => Uint8Array.of(each)))]);
  for (let at = 0; at <= bytes.length; at += 1) {
    results.add(parse(bytes.subarray(0, at), bytes.subarray(at)));
  }
  done([...results]);
}, (error) => done([String(error)]));
"""


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page(path=PICTURE)


def parse(page: Page, stream: bytes) -> Any:
    """What the parser makes of a stream, the same however the stream is divided into chunks."""
    results = page.driver.execute_async_script(PARSE, b64encode(stream).decode())
    assert len(results) == 1, results
    return json.loads(results[0])


def test_the_stream_of_an_inbox(page: Page) -> None:
    text = "Grüße, привет, 🙂, \u2028 and \ufeff"
    data = json.dumps({"message": text}, ensure_ascii=False)
    stream = (
        f"retry: 2000\nid: c-0\n\n: keepalive\n\nevent: message\nid: c-1\ndata: {data}\n\n"
        'event: drain\nretry: 7000\ndata: {"drain":true,"retry_after":7}\n\n'
    ).encode()
    for end in (b"\n", b"\r\n", b"\r"):
        assert parse(page, stream.replace(b"\n", end)) == {
            "events": [
                {"type": "message", "data": data},
                {"type": "drain", "data": '{"drain":true,"retry_after":7}'},
            ],
            "id": "c-1",
            "retry": 7000,
        }


def test_an_id_without_data_only_moves_the_cursor(page: Page) -> None:
    assert parse(page, b"retry: 2000\nid: c\n\n") == {"events": [], "id": "c", "retry": 2000}


def test_what_the_specification_says_of_fields(page: Page) -> None:
    for stream, events in [
        # The examples of WHATWG HTML, section 9.2.6.
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10")]),
        ("data\n\ndata\ndata\n\ndata:", [("message", ""), ("message", "\n")]),
        ("data:test\n\ndata: test\n\n", [("message", "test"), ("message", "test")]),
        # One space is left out, and only colons after the first are part of the value.
        ("data:  a: b\n\n", [("message", " a: b")]),
        ("event: x\n\ndata: y\n\n", [("message", "y")]),
        ("unknown: x\nDATA: y\n: data: z\n\n", []),
        ("\ufeffdata: x\n\n", [("message", "x")]),
    ]:
        expected = [{"type": kind, "data": data} for kind, data in events]
        assert parse(page, stream.encode())["events"] == expected, stream


def test_what_the_specification_says_of_ids_and_retry(page: Page) -> None:
    for stream, last_id, retry in [
        ("id: a\n\nid\n\n", "", None),
        ("id: a\n\ndata: x\n\n", "a", None),
        ("id: a\n\nid: b", "a", None),
        ("id: a\n\nid: b\n", "a", None),
        ("id: a\n\nid: b\0\n\n", "a", None),
        ("retry: 5\nretry: 1x\nretry: -1\nretry\n\n", "", 5),
    ]:
        parsed = parse(page, stream.encode())
        assert (parsed["id"], parsed["retry"]) == (last_id, retry), stream

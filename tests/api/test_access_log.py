"""The access log: its format, and what it must never contain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from chatd.process.logs import json_line
from tests.api.service import CHATS, FRONTS, OWN, TOKENS, USERS, Fields, Serve
from tests.http.raw_client import get

LINE = re.compile(
    r"(\S+) (\S+) (\S+) (\d{3}) (\d+) work=(\d+) hold=(\d+) outcome=([a-z_]+)"
    r" request=([A-Za-z0-9._-]+) user=(\d+|-)"
)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collects the lines of the access log."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "chatd.access":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))


@contextmanager
def logged_as_json() -> Iterator[list[str]]:
    """Collects all lines of the log, in JSON."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(json_line(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))


@pytest.mark.parametrize("front", FRONTS)
def test_a_request_is_one_line(serve: Serve, front: str) -> None:
    service = serve(front, access_log=True)
    ann = service.new_user("ann")
    with logged() as lines:
        response = ann.get(CHATS, headers={"X-Request-ID": "id-1"})
    [line] = lines
    match = LINE.fullmatch(line)
    assert match is not None, line
    length = str(len(response.body))
    assert match.groups() == ("127.0.0.1", "GET", CHATS, "200", length, "0", "0", "ok", "id-1", "1")


@pytest.mark.parametrize("front", FRONTS)
def test_work_and_hold_times_are_separate(serve: Serve, front: str) -> None:
    service = serve(front, access_log=True)
    ann = service.new_user("ann")
    with logged() as lines:
        ann.wait("?since=now&wait=7")
        service.advance(7)
    [line] = lines
    assert " 200 " in line
    assert " work=0 hold=7000 outcome=timeout " in line


@pytest.mark.parametrize("front", FRONTS)
def test_a_disconnected_client_is_logged_as_499(serve: Serve, front: str) -> None:
    service = serve(front, access_log=True)
    ann = service.new_user("ann")
    poll = ann.wait("?since=now&wait=7")
    with logged() as lines:
        poll.disconnect()
    [line] = lines
    match = LINE.fullmatch(line)
    assert match is not None, line
    assert (match[1], match[4], match[8]) == ("127.0.0.1", "499", "disconnect")


@pytest.mark.parametrize("front", FRONTS)
def test_neither_query_nor_body_nor_credentials_are_logged(serve: Serve, front: str) -> None:
    service = serve(front, access_log=True, trusted=["127.0.0.1/32"])
    with logged() as lines, logged_as_json() as as_json:
        body = {"username": "ann", "email": "hidden@mail", "password": "hidden password"}
        service.post(USERS, body)
        login = service.post(TOKENS, {"username": "ann", "password": "hidden password"})
        token = login.json["token"]
        service.post(CHATS, {"user_id": 1, "message": "hidden text"}, auth=f"Bearer {token}")
        service.get(CHATS + "?since=hidden&x=hidden", auth=f"Bearer {token}")
        service.get("/hid-not?hidden", headers={"X-Forwarded-For": "hidden"})
        service.get(USERS, auth="Basic hidden")
        service.get(CHATS, headers={"Cookie": "hidden", "Idempotency-Key": "hidden"})
    text = "\n".join(lines)
    assert len(lines) == 7
    assert all(LINE.fullmatch(line) for line in lines)
    for secret in ("hidden", token, "?"):
        assert secret not in text
    for line in as_json:
        assert "hidden" not in line
        assert token not in line
    access = [record for record in map(json.loads, as_json) if record["logger"] == "chatd.access"]
    assert len(access) == 7
    assert (access[3]["status"], access[3]["user_id"]) == (400, 1)
    assert access[3]["outcome"] not in ("", "ok")
    assert {"work_ms", "hold_ms", "request_id", "client", "method", "path"} <= access[3].keys()


@pytest.mark.parametrize(
    "path", ["/%0d%0aforged", "/\xff\xe9", "/a\\nb", "/%1b[31m", "/{request_id}", "/%s"]
)
def test_a_path_cannot_start_a_new_line(serve: Serve, path: str) -> None:
    service = serve(OWN, access_log=True)
    with logged() as lines:
        service.connect().send(get(path))
        service.connect().send(get("/x", f"X-Request-ID: {path}"))
    for line in lines:
        assert "\n" not in line
        assert line.isascii()
        assert line.isprintable()


def test_a_long_path_is_logged_in_part(serve: Serve) -> None:
    service = serve(access_log=True)
    with logged() as lines:
        for length in (499, 500, 8000):
            service.get("/" + "x" * length)
    paths = [line.split(" ")[2] for line in lines]
    assert paths == ["/" + "x" * 499, "/" + "x" * 499 + "...", "/" + "x" * 499 + "..."]


def test_the_logged_address_is_that_of_the_client(serve: Serve) -> None:
    service = serve(access_log=True, trusted=["127.0.0.1/32"])
    with logged() as lines:
        service.get("/healthz", headers={"X-Forwarded-For": "203.0.113.7"})
    assert lines[0].startswith("203.0.113.7 GET /healthz 200 ")
    assert lines[0].endswith(" user=-")


def test_nothing_is_logged_unless_configured(serve: Serve) -> None:
    service = serve()
    with logged() as lines:
        service.get("/healthz")
    assert lines == []


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_the_outcome_is_how_a_poll_or_stream_ended(serve: Serve, front: str, accept: str) -> None:
    service = serve(front, access_log=True)
    ann = service.new_user("ann")
    headers: Fields = {"Accept": accept}
    with logged() as lines:
        held = ann.wait("?since=now&wait=30" if accept == "*/*" else "?since=now", headers=headers)
        if accept == "*/*":
            ann.send(ann)
        held_until_drain = ann.wait(
            "?since=now&wait=30" if accept == "*/*" else "?since=now", headers=headers
        )
        if accept != "*/*":
            held.disconnect()
        service.system.components.notifier.drain()
        service.settle()
        assert not held_until_drain.held
        ann.get("/api/v1/nothing/")
    outcomes = [match[1] for line in lines if (match := re.search(r"outcome=([a-z_]+)", line))]
    assert outcomes == [
        *(["message", "ok"] if accept == "*/*" else ["disconnect"]),
        "drain",
        "not_found",
    ]

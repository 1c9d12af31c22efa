"""Fuzzing: whatever a client sends, the response is a JSON document and not a 5xx."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.api.service import CHATS, FRONTS, OWN, TOKENS, USERS, Service, serving
from tests.examples import examples
from tests.http.raw_client import RawClient, parse

BOUNDED = settings(
    max_examples=examples(25, deep=80),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

TEXTS = st.text(max_size=40) | st.sampled_from(["", "\0", "ann", "@", "a@b", "now", "0", "é" * 99])
NUMBERS = st.integers() | st.floats(allow_nan=True) | st.sampled_from([0, 1, -1, 2**53, 2**63, 1.0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from(
    [
        *("username", "email", "password", "user_id", "seq", "message", "x", ""),
        *("current_password", "label", "expires_in", "scopes"),
    ]
)
LOG_INS = st.fixed_dictionaries(
    {"username": st.just("tester"), "password": st.just("password")},
    optional={"label": VALUES, "expires_in": VALUES, "scopes": VALUES},
)
CHANGES = st.fixed_dictionaries(
    {"current_password": st.just("password")}, optional={"email": VALUES, "password": VALUES}
)
BODIES = (
    st.binary(max_size=60)
    | (st.dictionaries(MEMBERS, VALUES, max_size=5) | LOG_INS | CHANGES).map(
        lambda value: json.dumps(value).encode()
    )
    | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
)
KINDS = st.sampled_from([b"application/json"] * 6 + [b"", b"\xff", b"text/plain"]) | st.binary(
    max_size=20
)
DIGITS = st.text(alphabet="0123456789+-_.eEx \u0660\u0661", max_size=8).map(str.encode)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(b"since", b"wait", b"page", b"limit", b"at", b"user_id", b"seq", b"username"),
                *(b"changes", b"wait_for", b"before", b"with"),
                *(b"id", b"others", b"prefix"),
            ]
        )
        | st.binary(max_size=4),
        DIGITS
        | st.binary(max_size=12)
        | st.sampled_from([b"now", b"0", b"1", b"10", b"55.5", b"true"]),
    ),
    max_size=4,
)
# Octets that a header may contain; the HTTP server refuses others.
OCTETS = st.lists(st.integers(0x20, 0x7E) | st.integers(0x80, 0xFF), max_size=30).map(bytes)
NAMES = st.sampled_from(
    [
        *(b"Authorization", b"Idempotency-Key", b"Prefer", b"X-Request-ID", b"X-Forwarded-For"),
        *(b"Accept", b"Cookie", b"Content-Encoding", b"Origin", b"Range", b"If-None-Match"),
    ]
)
HEADERS = st.lists(
    st.tuples(NAMES, OCTETS | DIGITS | st.sampled_from([b"wait=1", b"Basic YTpi", b"Bearer x"])),
    max_size=3,
)
BLOCKS = "/api/v1/blocks/"
TARGETS = st.sampled_from(
    [
        *(CHATS, USERS, TOKENS, BLOCKS, "/healthz", "/readyz"),
        *("/api/v1/conversations/", "/api/v1/conversations/read/"),
    ]
).map(str.encode)
METHODS = st.sampled_from([b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"PATCH"])


# Both servers in every example: pytest-twisted cannot parametrize tests of hypothesis.
@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                serving(
                    tmp_path_factory.mktemp("fuzzed"),
                    front,
                    trusted=["0.0.0.0/0"],
                    access_log=True,
                    directory=True,
                )
            )
            for front in FRONTS
        ]
        for service in services:
            service.new_user("tester")
        yield services


def quoted(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join(
        f"{quote_from_bytes(name)}={quote_from_bytes(value)}".encode() for name, value in pairs
    )


def check_response(service: Service, method: bytes, client: RawClient) -> None:
    """Assert that there is a response after the longest wait, that it is JSON and not a 5xx."""
    service.settle()
    if not client.transport.value():
        service.advance(55)
    [response] = parse(client.transport.value(), method.decode())
    assert response.status < 500, response
    kind = response.header("Content-Type")
    if method == b"HEAD" or response.status == 204:
        assert response.body == b""
    elif method == b"OPTIONS" and response.status == 200:
        assert kind is None
    else:
        document = json.loads(response.body)
        assert kind == ("application/json" if response.status < 400 else "application/problem+json")
        assert response.status < 400 or document["status"] == response.status
    if service.front == OWN:
        client.disconnect()
    assert service.system.notifier.held == 0


def request(
    services: list[Service],
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes | None,
    known: bool = True,
) -> None:
    """Send the request to each service, as a `known` user or without credentials."""
    for service in services:
        client = service.connect()
        lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: a"]
        if known:
            # A new one each time: the last request may have deleted the account.
            user = service.new_user(f"u{next(_numbers)}")
            lines.append(b"Authorization: %b" % user.bearer.encode())
        lines += [b"%b: %b" % header for header in headers]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        client.send(b"\r\n".join([*lines, b"", body or b""]))
        check_response(service, method, client)


_numbers = iter(range(10**9))


@BOUNDED
@given(
    target=TARGETS,
    method=st.sampled_from([b"POST", b"POST", b"PATCH", b"PUT"]),
    kind=KINDS,
    body=BODIES,
)
def test_any_body(
    fuzzed: list[Service], target: bytes, method: bytes, kind: bytes, body: bytes
) -> None:
    kind = bytes(octet for octet in kind if octet >= 0x20 and octet != 0x7F)
    request(fuzzed, method, target, [(b"Content-Type", kind)], body)


@BOUNDED
@given(
    user_id=st.integers(1, 30) | NUMBERS,
    seq=st.integers(1, 3) | NUMBERS,
    text=st.text(st.characters(exclude_categories=[]), max_size=8) | VALUES,
)
def test_any_revision(fuzzed: list[Service], user_id: Any, seq: Any, text: Any) -> None:
    body = json.dumps({"user_id": user_id, "seq": seq, "message": text}).encode()
    request(fuzzed, b"PATCH", CHATS.encode(), [(b"Content-Type", b"application/json")], body)
    query = quoted([(b"user_id", str(user_id).encode()), (b"seq", str(seq).encode())])
    request(fuzzed, b"DELETE", CHATS.encode() + b"?" + query, [], None)


@BOUNDED
@given(target=TARGETS, method=METHODS, pairs=QUERIES)
def test_any_query(fuzzed: list[Service], target: bytes, method: bytes, pairs: Any) -> None:
    request(fuzzed, method, target + b"?" + quoted(pairs), [], None)


@BOUNDED
@given(target=TARGETS, method=METHODS, headers=HEADERS, known=st.booleans())
def test_any_header(
    fuzzed: list[Service], target: bytes, method: bytes, headers: Any, known: bool
) -> None:
    request(fuzzed, method, target, headers, b"{}" if method == b"POST" else None, known)


@BOUNDED
@given(path=st.binary(max_size=30), method=METHODS, raw=st.booleans())
def test_any_path(fuzzed: list[Service], path: bytes, method: bytes, raw: bool) -> None:
    if raw:
        target = bytes(octet for octet in path if 0x21 <= octet <= 0x7E and octet != 0x23)
    else:
        target = quote_from_bytes(path).encode()
    if target.partition(b"?")[0] == b"":
        # The web page is not JSON.
        return
    request(fuzzed, method, b"/" + target, [], None, known=False)


@BOUNDED
@given(octets=st.binary(max_size=200))
@example(octets=b"HEAD ")
def test_any_octets(fuzzed: list[Service], octets: bytes) -> None:
    [service] = [each for each in fuzzed if each.front == OWN]
    client = service.connect()
    client.send(octets + b"\r\n\r\n")
    service.settle()
    # The response to a HEAD has no body, not even if the request is refused.
    methods = ["HEAD"] if re.match(rb"(\r\n)*HEAD ", octets) else []
    for response in parse(client.transport.value(), *methods):
        assert response.status in range(200, 500) or response.status in (501, 505)
    client.disconnect()

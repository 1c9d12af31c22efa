"""What goes over the wire, piece by piece."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from twisted.web.http_headers import Headers

from chatd.api import rendering
from chatd.domain.chats import Page, Polled
from chatd.errors import InvalidQuery
from chatd.model import MAX_INTEGER, Account, Cursor, IssuedToken, Message, WakeReason

SECOND = 1_000_000
SEED = 1_451_034_820  # 2015-12-25T09:13:40Z


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (SEED * SECOND, "2015-12-25T09:13:40Z"),
        (SEED * SECOND + 999_999, "2015-12-25T09:13:40Z"),
        (951_782_400 * SECOND, "2000-02-29T00:00:00Z"),
        (253_402_300_799 * SECOND, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_is_that_of_the_seed(microseconds: int, text: str) -> None:
    assert rendering.timestamp(microseconds) == text


@pytest.mark.parametrize("text", ["hai", '"', "\\", "\n\x01\x7f", "é🙂\u2028", "</script>"])
def test_a_message_is_json(text: str) -> None:
    document = json.loads(rendering.message(Message(1, 2, 3, SEED * SECOND, text)))
    assert list(document.items()) == [
        ("seq", 2),
        ("sent_by", 3),
        ("message", text),
        ("sent_at", "2015-12-25T09:13:40Z"),
        ("received_by", 1),
    ]


def test_the_largest_integers_are_exact() -> None:
    message = Message(MAX_INTEGER, MAX_INTEGER, MAX_INTEGER, 0, "x")
    document = json.loads(rendering.message(message))
    assert document["seq"] == document["sent_by"] == document["received_by"] == 2**53 - 1


def test_an_account_is_that_of_the_seed() -> None:
    account = Account(2, "xxxx", "yyyyy@yyyy.yyy", (SEED - 3589) * SECOND, SEED * SECOND)
    assert json.loads(rendering.account(account)) == {
        "id": 2,
        "username": "xxxx",
        "email": "yyyyy@yyyy.yyy",
        "date_joined": "2015-12-25T08:13:51Z",
        "last_seen_at": "2015-12-25T09:13:40Z",
    }
    fresh = Account(2, "x", "a@b", 0, None)
    assert json.loads(rendering.account(fresh))["last_seen_at"] is None


def test_a_token_is_shown() -> None:
    document = json.loads(rendering.token(IssuedToken("chatd_x", 1, SEED * SECOND)))
    assert document == {"token": "chatd_x", "user_id": 1, "created_at": "2015-12-25T09:13:40Z"}


@pytest.mark.parametrize(
    ("page", "pages", "following", "previous"),
    [(1, 0, None, None), (1, 1, None, None), (1, 2, 2, None), (2, 3, 3, 1), (3, 3, None, 2)],
)
def test_a_page_names_its_neighbours(
    page: int, pages: int, following: int | None, previous: int | None
) -> None:
    meta = json.loads(rendering.page(Page(page, pages, Cursor("abcdefgh", 13), ()), 0.0109))["meta"]
    assert (meta["next"], meta["previous"]) == (following, previous)
    assert (meta["current_page"], meta["count"], meta["took"]) == (str(page), 13, 10)
    assert meta["cursor"] == "abcdefgh-13"


@pytest.mark.parametrize("why", list(WakeReason))
def test_a_poll_tells_why_it_ended(why: WakeReason) -> None:
    polled = Polled((), 5, Cursor("abcdefgh", 3), why, 1.9999)
    meta = json.loads(rendering.polled(polled, -1e-17, None))["meta"]
    assert meta["timed_out"] is (why is WakeReason.TIMEOUT)
    assert meta.get("superseded") is (True if why is WakeReason.SUPERSEDED else None)
    assert (meta["more"], meta["waited"], meta["took"]) == (True, 1999, 0)
    assert "wait_applied" not in meta
    assert json.loads(rendering.polled(polled, 0, 55))["meta"]["wait_applied"] == 55


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("100", 100)])
def test_a_whole_number_is_digits(text: str, number: int) -> None:
    assert rendering.whole({"n": text}, "n", 5, 100) == number
    assert rendering.whole({}, "n", 5, 100) == 5


@pytest.mark.parametrize("text", ["0", "101", "", "1 ", "1_0", "²", "\u0661", "9" * 5000])
def test_any_other_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^n: "):
        rendering.whole({"n": text}, "n", 5, 100)


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("1", 1),
        ("0" * 5000 + "2", 2),
        ("9007199254740991", MAX_INTEGER),
        ("9" * 5000, MAX_INTEGER),
    ],
)
def test_a_page_may_be_however_far(text: str, page: int) -> None:
    assert rendering.page_number({"page": text}) == page


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1.50", 1.5), ("9" * 400, None)])
def test_seconds_are_decimal(text: str, number: float | None) -> None:
    assert rendering.seconds({"wait": text}, "wait") == (float("inf") if number is None else number)


def preferring(*fields: bytes) -> Any:
    headers = Headers()
    headers.setRawHeaders(b"prefer", list(fields))
    return SimpleNamespace(
        requestHeaders=headers, getHeader=lambda name: (headers.getRawHeaders(name) or [None])[-1]
    )


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ([], None),
        ([b"wait=5"], 5),
        ([b"wait=5", b"wait=6"], 5),
        ([b"return=minimal", b"wait=6"], 6),
        ([b"wait=x, wait=6"], None),
        ([b"wait=" + b"9" * 300], MAX_INTEGER),
        ([b"wait=" + b"9" * 5000], None),
        ([b"\xff, wait=6"], 6),
    ],
)
def test_the_first_wait_that_is_preferred_counts(fields: list[bytes], wait: int | None) -> None:
    assert rendering.preferred_wait(preferring(*fields)) == wait


def test_bodies_refuse_unknown_members() -> None:
    for kind in (rendering.Registration, rendering.LogIn, rendering.Send):
        assert msgspec.json.schema(kind)["$defs"][kind.__name__]["additionalProperties"] is False


def test_a_message_is_encoded_once_unless_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Message] = []

    def message(value: Message) -> bytes:
        made.append(value)
        return value.text.encode()

    monkeypatch.setattr(rendering, "message", message)
    encode = rendering.EncodedMessageCache()
    short = [Message(to, seq, 1, 1, f"{to}.{seq}") for to in (1, 2, MAX_INTEGER) for seq in (1, 2)]
    for _ in range(3):
        assert [encode(each) for each in short] == [each.text.encode() for each in short]
    assert made == short
    long = Message(1, 3, 1, 1, "x" * (rendering.EncodedMessageCache.LARGEST + 1))
    for _ in range(2):
        assert encode(long) == long.text.encode()
    assert made == [*short, long, long]


def test_encoded_messages_are_kept_in_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering.EncodedMessageCache, "KEPT", 5)
    encode = rendering.EncodedMessageCache()
    for _ in range(2):
        for seq in range(1, 12):
            message = Message(1, seq, 1, 1, str(seq))
            assert json.loads(encode(message)) == json.loads(rendering.message(message))
            assert encode.kept <= 5

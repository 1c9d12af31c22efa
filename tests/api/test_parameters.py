"""Parsing of query parameters and headers, without a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import pytest
from msgspec import Struct

from chatd.api.chats_query import ConversationQuery, PageQuery, PollQuery
from chatd.api.chats_read import ReadCalls
from chatd.api.parameters import (
    MAX_PARAMETERS,
    MAX_PREFER,
    PREFERRED_WAIT,
    HeaderValues,
    Parameters,
    integer,
    page_number,
    parse_query,
    seconds,
    text,
)
from chatd.errors import InvalidCursor, InvalidQuery
from chatd.model import BEGINNING, MAX_INTEGER, ConversationCursor, Cursor

NUMBER = integer("n", "A number.", 100)


def no_headers(name: bytes) -> list[bytes]:
    return []


@pytest.mark.parametrize(("digits", "number"), [("1", 1), ("007", 7), ("100", 100)])
def test_an_integer_is_decimal_digits(digits: str, number: int) -> None:
    assert NUMBER.parse(digits) == number


@pytest.mark.parametrize("value", ["0", "101", "", "1 ", "1_0", "²", "\u0661", "9" * 5000])
def test_any_other_integer_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^n: a whole number from 1 to 100$"):
        NUMBER.parse(value)


@pytest.mark.parametrize(
    ("digits", "number"),
    [
        ("1", 1),
        ("0" * 5000 + "2", 2),
        ("9007199254740991", MAX_INTEGER),
        ("9" * 5000, MAX_INTEGER),
    ],
)
def test_a_page_number_has_no_maximum(digits: str, number: int) -> None:
    assert page_number("page", "").parse(digits) == number


@pytest.mark.parametrize("value", ["", "0", "000", "-1", "1.0", "\u0661"])
def test_a_page_number_is_at_least_one(value: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^page: a whole number from 1 up$"):
        page_number("page", "").parse(value)


@pytest.mark.parametrize(("value", "number"), [("0", 0), ("1.50", 1.5), ("9" * 400, float("inf"))])
def test_seconds_are_decimal(value: str, number: float) -> None:
    assert seconds("wait", "").parse(value) == number


@pytest.mark.parametrize("value", ["", "-1", "1.", ".5", "1e1", "inf", "1 ", "\u0661"])
def test_other_seconds_are_refused(value: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^wait: seconds, as decimal digits"):
        seconds("wait", "").parse(value)


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
        ([b"," * (MAX_PREFER - 6), b"wait=7"], 7),
        ([b"," * (MAX_PREFER - 5), b"wait=7"], None),
    ],
)
def test_the_first_preferred_wait_counts(fields: list[bytes], wait: int | None) -> None:
    assert PREFERRED_WAIT.parse(fields) == wait


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a", {"a": ""}),
        (b"a=", {"a": ""}),
        (b"a=1=2", {"a": "1=2"}),
        (b"&&a=%31+%2b&x=%FF&%FF=1&", {"a": "1 +"}),
        (b"%61=1", {"a": "1"}),
        ("a=é".encode(), {"a": "é"}),
        (b"c=1&c=2&A=1", {}),
        (b"%&" * (MAX_PARAMETERS - 1) + b"a=1", {"a": "1"}),
    ],
)
def test_a_query_is_form_encoded(query: bytes, found: dict[str, str]) -> None:
    assert parse_query(query, {"a", "b"}) == found


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (b"a=1&a=1", "a: given more than once"),
        (b"a=1&%61=1", "a: given more than once"),
        (b"a=%FF", "a: not UTF-8"),
        (b"a=\xff", "a: not UTF-8"),
        (b"%&" * MAX_PARAMETERS + b"a=1", "more than 100 parameters"),
    ],
)
def test_a_parameter_is_given_once_and_in_utf_8(query: bytes, detail: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{detail}$"):
        parse_query(query, {"a"})


class FirstParameters(Struct, frozen=True):
    both: Annotated[int, integer("both", "For both.", 9)] = 1
    left: Annotated[int, integer("left", "For one.", 9)] = 5


class SecondParameters(Struct, frozen=True):
    right: Annotated[str, text("right", "For the other.")]
    both: Annotated[int, integer("both", "For both.", 9)] = 2


def choose(
    texts: Mapping[str, str], headers: HeaderValues
) -> type[FirstParameters | SecondParameters]:
    return SecondParameters if "right" in texts else FirstParameters


def test_a_request_selects_one_of_several_structs() -> None:
    parameters = Parameters(FirstParameters, SecondParameters, choose=choose)
    assert parameters.parse(b"", no_headers) == FirstParameters(1, 5)
    assert parameters.parse(b"both=3&left=4", no_headers) == FirstParameters(3, 4)
    assert parameters.parse(b"right=x", no_headers) == SecondParameters("x", 2)
    # A parameter of the alternative that was not selected is ignored like an unknown one.
    assert parameters.parse(b"right=x&left=none", no_headers) == SecondParameters("x", 2)


def test_of_several_errors_the_last_declared_parameter_is_named() -> None:
    with pytest.raises(InvalidQuery, match=r"^left: "):
        Parameters(FirstParameters).parse(b"both=x&left=x", no_headers)


def test_parameters_are_described_once() -> None:
    described = Parameters(FirstParameters, SecondParameters, choose=choose).described()
    assert [(each.name, default) for each, default in described] == [
        ("both", None),
        # A client that always sends it could not select the other alternative.
        ("left", None),
        ("right", None),
    ]
    described = Parameters(FirstParameters).described()
    assert [(each.name, default) for each, default in described] == [("both", 1), ("left", 5)]


def test_names_that_are_not_declared_are_reported_also_with_an_error() -> None:
    parameters = Parameters(FirstParameters)
    unknown: list[str] = []
    parameters.parse(b"both=3&lift=4&=&x&%ff&b%6fth2=1", no_headers, unknown)
    assert unknown == ["lift", "x", "both2"]
    unknown.clear()
    with pytest.raises(InvalidQuery):
        parameters.parse(b"lift=4&both=x", no_headers, unknown)
    assert unknown == ["lift"]


READ = next(each.parameters for name, each in vars(ReadCalls).items() if name == "get_chats")


@pytest.mark.parametrize(
    ("query", "prefer", "value"),
    [
        (b"", [], PageQuery()),
        (b"limit=7", [], PageQuery(limit=7)),
        (b"page=2&at=abcdefgh-5", [b"wait=5"], PageQuery(2, Cursor("abcdefgh", 5))),
        (b"since=now", [], PollQuery()),
        (b"since=0&wait=1.5", [], PollQuery(BEGINNING, 1.5)),
        (b"since=abcdefgh-5", [b"wait=5"], PollQuery(Cursor("abcdefgh", 5), preferred_wait=5)),
        (b"", [b"wait=5"], PollQuery(preferred_wait=5)),
        (b"wait=3&limit=9", [b"wait=5"], PollQuery(None, 3.0, 9)),
        (b"with=3", [b"wait=5"], ConversationQuery(3)),
        (b"with=3&before=1.2.3&limit=1", [], ConversationQuery(3, ConversationCursor(1, 2, 3), 1)),
    ],
)
def test_reading_chats_is_parsed_from_query_and_headers(
    query: bytes, prefer: list[bytes], value: Struct
) -> None:
    assert READ.parse(query, lambda name: prefer if name == b"prefer" else []) == value


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (b"page=1&wait=1", "page cannot be combined with since, wait or changes"),
        (b"at=x&since=x", "at cannot be combined with since, wait or changes"),
        (b"with=1&since=0", "since cannot be combined with the parameter with"),
        (b"before=1.1.1&since=0", "before goes together with the parameter with"),
        (b"at=x&limit=0", "limit: a whole number from 1 to 100"),
        (b"since=x&limit=0", "limit: a whole number from 1 to 100"),
    ],
)
def test_what_cannot_be_combined_is_named(query: bytes, detail: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{detail}$"):
        READ.parse(query, no_headers)


def test_a_cursor_is_parsed_before_the_page_number() -> None:
    with pytest.raises(InvalidCursor):
        READ.parse(b"page=0&at=x", no_headers)

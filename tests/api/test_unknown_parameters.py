"""Unknown query parameters are ignored, and told if they are probably misspelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.api import unknown_parameters as module
from chatd.api.dispatch import Dispatch
from chatd.api.unknown_parameters import is_similar, unknown_parameters
from tests.api.service import CHATS, OWN, TOKENS, USERS, Serve, Service

KNOWN = {"wait", "since", "limit", "page", "at"}


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        *(("wiat", "wait"), ("awit", "wait"), ("wati", "wait"), ("wit", "wait"), ("wai", "wait")),
        *(("waitt", "wait"), ("xwait", "wait"), ("wa_it", "wait"), ("wbit", "wait")),
        *(("Wait", "wait"), ("a", "at"), ("limits", "limit")),
    ],
)
def test_a_name_that_differs_by_a_letter_is_told(name: str, similar: str) -> None:
    assert unknown_parameters([name], KNOWN) == f'"{name}";similar="{similar}"'.encode()


@pytest.mark.parametrize(
    "name",
    [
        *("x", "wtt", "tiaw", "waiting", "iwta", "wa", "callback", "_", "ta_", "WAIT", ""),
        *("sinc\u00e9", "wai\r", "wai\n", 'wai"', "wai t", "w" * 50),
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert unknown_parameters([name], KNOWN) is None


def test_several_are_told_once_each_and_not_without_limit() -> None:
    assert unknown_parameters(["wiat", "x", "wiat", "sinse"], KNOWN) == (
        b'"wiat";similar="wait", "sinse";similar="since"'
    )
    told = unknown_parameters([f"wait{each}" for each in "abcdefghijklmno"], KNOWN)
    assert told is not None
    assert told.count(b"similar") == 8


def test_only_the_first_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: set[str] = set()

    def similar(name: str, known: str) -> bool:
        compared.add(name)
        return False

    monkeypatch.setattr(module, "is_similar", similar)
    names = [f"x{number}" for number in range(3000)]
    assert unknown_parameters(names, KNOWN) is None
    assert compared == set(names[: module.MAX_COMPARED])


WORDS = st.text(alphabet="abc", max_size=6)


@given(WORDS, WORDS)
def test_similar_is_one_operation_away(one: str, other: str) -> None:
    places = range(len(one) + 1)
    edits = {one}
    edits |= {one[:i] + one[i + 1 :] for i in places}
    edits |= {one[:i] + letter + one[i:] for i in places for letter in "abc"}
    edits |= {one[:i] + letter + one[i + 1 :] for i in places[:-1] for letter in "abc"}
    edits |= {one[:i] + one[i + 1] + one[i] + one[i + 2 :] for i in places[:-2]}
    assert is_similar(one, other) == (other in edits)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?since=now&wiat=1", '"wiat";similar="wait"'),
        ("?sinse=0&limt=1", '"sinse";similar="since", "limt";similar="limit"'),
        ("?since=now&wi%61t=1", '"wiat";similar="wait"'),
        ("?page=1&wait_=1&page=2", '"wait_";similar="wait"'),
        ("?since=x&wiat=1", '"wiat";similar="wait"'),
        ("?since=now&x=1&=2&%ff=3&wai%0d%0aX=1", None),
        ("?since=now", None),
        ("?wait=0", None),
    ],
)
def test_responses_and_errors_tell_it(service: Service, query: str, told: str | None) -> None:
    ann = service.new_user()
    ann.page()
    # The second time nothing is left to be parsed anew.
    for _ in range(2):
        assert ann.get(CHATS + query).header("Unknown-Parameter") == told


def test_every_call_with_parameters_tells_it(service: Service) -> None:
    ann = service.new_user()
    name = "Unknown-Parameter"
    assert ann.get(USERS + "?user_ids=1").header(name) == '"user_ids";similar="user_id"'
    assert ann.request("DELETE", CHATS + "?user_id=1&sq=1").header(name) == '"sq";similar="seq"'
    sent = ann.post(CHATS + "?wait-for=read", {"user_id": ann.id, "message": "hai"})
    assert (sent.status, sent.header(name)) == (201, '"wait-for";similar="wait_for"')
    assert service.post(TOKENS + "?wiat=1", {}).header(name) is None
    stream = ann.wait("?sinc=0", headers={"Accept": "application/x-ndjson"})
    head = stream.client.transport.value().partition(b"\r\n\r\n")[0]
    assert b'Unknown-Parameter: "sinc";similar="since"' in head


def test_what_is_not_told_takes_the_fast_path(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(OWN)
    ann = service.new_user()
    ann.page()
    # Whatever takes the other way fails.
    monkeypatch.delattr(Dispatch, "render")
    for query in ("", "?page=1", "?since=now", "?since=0&wait=0", "?since=0&callback=x"):
        assert ann.get(CHATS + query).status == 200

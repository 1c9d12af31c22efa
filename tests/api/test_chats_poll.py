"""The long poll (contract, `GET /chats/?since=CURSOR&wait=SECONDS`)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chatd.api.chats_read import PollMeta
from chatd.api.rendering import document
from chatd.domain.notifier import HELD_PER_USER
from chatd.domain.poll import Polled
from chatd.model import Cursor, WakeReason
from tests.api.service import (
    CHATS,
    RETRY_JITTER,
    STOCK,
    USERS,
    Exchange,
    Serve,
    Service,
    User,
    texts,
)
from tests.http.raw_client import get

META = ["count", "cursor", "more", "timed_out", "waited", "took"]


@pytest.fixture
def service(either: Service) -> Service:
    """These calls take the fast path, or not."""
    return either


@pytest.mark.parametrize("why", list(WakeReason))
def test_the_meta_of_a_poll_says_why_it_ended(why: WakeReason) -> None:
    polled = Polled((), 5, Cursor("abcdefgh", 3), why, 1.9999)
    meta = json.loads(document(PollMeta.of(polled, -1e-17, 55)))
    assert meta["timed_out"] is (why is WakeReason.TIMEOUT)
    assert meta.get("superseded") is (True if why is WakeReason.SUPERSEDED else None)
    assert (meta["more"], meta["waited"], meta["took"]) == (True, 1999, 0)
    assert "wait_applied" not in meta
    assert json.loads(document(PollMeta.of(polled, 0, 55.5)))["wait_applied"] == 55


def meta(exchange: Exchange) -> dict[str, Any]:
    """The meta of an answered poll."""
    assert exchange.response.status == 200
    found: dict[str, Any] = exchange.response.json["meta"]
    return found


def end(service: Service, *polls: Exchange) -> None:
    """Let polls time out."""
    service.advance(60)
    assert not any(poll.held for poll in polls)


def test_a_poll_gives_what_came_since_oldest_first(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    for text in "abc":
        bob.send(ann, text)
    response = ann.get(CHATS + "?since=0")
    document = response.json
    assert list(document) == ["meta", "messages"]
    assert list(document["meta"]) == META
    cursor = document["meta"].pop("cursor")
    assert document["meta"] == {
        "count": 3,
        "more": False,
        "timed_out": False,
        "waited": 0,
        "took": 0,
    }
    assert texts(document) == ["a", "b", "c"]
    assert list(document["messages"][0]) == ["seq", "sent_by", "message", "sent_at", "received_by"]
    assert texts(ann.poll(f"?since={cursor}")) == []
    assert response.header("Cache-Control") == "no-store"


def test_reading_never_consumes(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = ann.poll("?since=now")["meta"]["cursor"]
    bob.send(ann, "a")
    for _ in range(3):
        assert texts(ann.poll(f"?since={cursor}")) == ["a"]
    bob.send(ann, "b")
    assert texts(ann.poll(f"?since={cursor}")) == ["a", "b"]


def test_a_poll_with_messages_is_answered_at_once(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    bob.send(ann, "a")
    poll = ann.start_and_settle("GET", CHATS + "?since=0&wait=55")
    assert texts(poll.response.json) == ["a"]
    assert service.system.notifier.held == 0


def test_a_poll_without_messages_is_answered_by_the_next(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    poll = ann.wait("?since=0&wait=30")
    service.advance(2.5)
    assert poll.held
    bob.send(bob, "for another")
    assert poll.held
    bob.send(ann, "a")
    assert texts(poll.response.json) == ["a"]
    assert meta(poll)["waited"] == 2500
    assert meta(poll)["timed_out"] is False
    assert service.system.notifier.held == 0


def test_a_poll_ends_with_its_wait(service: Service) -> None:
    ann = service.new_user()
    poll = ann.wait("?since=now&wait=1.5")
    service.advance(1.25)
    assert poll.held
    service.advance(0.25)
    assert poll.response.json["messages"] == []
    found = meta(poll)
    assert list(found) == META
    assert (found["timed_out"], found["more"], found["waited"]) == (True, False, 1500)
    assert poll.response.header("Retry-After") is None


@pytest.mark.parametrize("query", ["?wait=0", "?since=now", "?since=now&wait=0", "?wait=0.0"])
def test_without_a_wait_nothing_is_held(service: Service, query: str) -> None:
    ann, bob = service.new_user(), service.new_user()
    bob.send(ann)
    document = ann.poll(query)
    assert document["messages"] == []
    assert document["meta"]["count"] == 1
    assert document["meta"]["waited"] == 0
    assert service.system.notifier.held == 0


def test_a_wait_alone_is_from_now(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    bob.send(ann, "before")
    poll = ann.wait("?wait=30")
    bob.send(ann, "after")
    assert texts(poll.response.json) == ["after"]


@pytest.mark.parametrize(
    ("wait", "held", "applied"),
    [
        *(("55", 55, None), ("55.0", 55, None), ("55.01", 55, 55), ("56", 55, 55)),
        *(("1000", 55, 55), ("9" * 5000, 55, 55), ("54.5", 54.5, None), ("0.001", 0.001, None)),
        *(("007", 7, None), ("55." + "0" * 400 + "1", 55, None), ("1." + "9" * 50, 2, None)),
    ],
)
def test_a_wait_is_lowered_to_55_seconds(
    stock: Service, wait: str, held: float, applied: int | None
) -> None:
    poll = stock.new_user().wait(f"?wait={wait}")
    stock.clock.advance(held - 0.0005)
    stock.settle()
    assert poll.held
    stock.advance(0.0005)
    assert meta(poll)["timed_out"] is True
    assert meta(poll).get("wait_applied") == applied


def test_wait_applied_is_reported_with_messages_too(service: Service) -> None:
    ann = service.new_user()
    ann.send(ann)
    assert ann.poll("?since=0&wait=100")["meta"]["wait_applied"] == 55


@pytest.mark.parametrize(
    "wait",
    [
        *("", "-1", "-0", "%201", "1%20", "%2B1", "+1", "1_000", "0x10", "1e1", "1.", ".5", "."),
        *("1.5.5", "1,5", "abc", "NaN", "nan", "inf", "Infinity", "%D9%A1", "%FF", "%00", "1s"),
        *("1%0A", "%EF%BC%91", "1.%D9%A1"),
    ],
)
def test_a_wait_is_decimal_digits_with_a_fraction(stock: Service, wait: str) -> None:
    ann = stock.new_user()
    ann.get(f"{CHATS}?wait={wait}").problem(400, "invalid_query")
    ann.get(f"{CHATS}?since=0&wait={wait}").problem(400, "invalid_query")


def test_a_parameter_is_given_once(stock: Service) -> None:
    ann = stock.new_user()
    for query in ("?wait=1&wait=1", "?since=0&since=0", "?since=0&limit=1&limit=1"):
        ann.get(CHATS + query).problem(400, "invalid_query")


@pytest.mark.parametrize(
    "prefer",
    [
        "wait=5",
        "Wait=5",
        "WAIT = 5",
        'wait="5"',
        "respond-async, wait=5",
        "wait=5; x=y",
        "wait=5, wait=9",
        "foo=bar; a=b,wait=5",
        "wait=0005",
        ["respond-async", "wait=5"],
    ],
)
def test_a_preference_is_a_wait(service: Service, prefer: Any) -> None:
    ann = service.new_user()
    for query in ("", "?since=now"):
        poll = ann.wait(query, headers={"Prefer": prefer})
        service.advance(4.5)
        assert poll.held
        service.advance(0.5)
        assert meta(poll)["timed_out"] is True
        assert poll.response.header("Preference-Applied") == "wait=5"


@pytest.mark.parametrize("wanted", ["56", "100", "999999999", "9999999999", "9" * 400])
def test_a_preference_is_lowered_to_55_seconds(service: Service, wanted: str) -> None:
    poll = service.new_user().wait("", headers={"Prefer": f"wait={wanted}"})
    service.advance(55)
    assert meta(poll)["wait_applied"] == 55
    assert poll.response.header("Preference-Applied") == "wait=55"


@pytest.mark.parametrize(
    "prefer",
    [
        *("", "wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "wait=1_0", "wait= ", "wait==5"),
        *("wait=5 6", 'wait="5', "wait='5'", "waits=5", "x-wait=5", "return=minimal", b"wait=\xff"),
        *(b"\xff", "wait=\u0665".encode(), "wait=x, wait=5", "=", ",,,", ";", "wait=" + "9" * 5000),
    ],
)
def test_a_malformed_preference_is_ignored(service: Service, prefer: str | bytes) -> None:
    ann = service.new_user()
    page = ann.get(CHATS, headers={"Prefer": prefer})
    assert page.json["meta"]["current_page"] == "1"
    assert page.header("Preference-Applied") is None
    poll = ann.get(CHATS + "?since=0", headers={"Prefer": prefer})
    assert poll.json["meta"]["waited"] == 0
    assert poll.header("Preference-Applied") is None


def test_the_parameter_wins_over_the_preference(service: Service) -> None:
    ann = service.new_user()
    poll = ann.wait("?wait=2", headers={"Prefer": "wait=50"})
    service.advance(2)
    assert meta(poll)["timed_out"] is True
    assert poll.response.header("Preference-Applied") is None
    now = ann.get(CHATS + "?since=0&wait=0", headers={"Prefer": "wait=50"})
    assert now.header("Preference-Applied") is None


def test_an_explicit_page_does_not_wait(service: Service) -> None:
    response = service.new_user().get(CHATS + "?page=1", headers={"Prefer": "wait=50"})
    assert response.json["meta"]["current_page"] == "1"


def test_a_preference_is_applied_to_a_poll_that_finds_messages(service: Service) -> None:
    ann = service.new_user()
    ann.send(ann)
    response = ann.get(CHATS + "?since=0", headers={"Prefer": "wait=5"})
    assert len(response.json["messages"]) == 1
    assert response.header("Preference-Applied") == "wait=5"


def test_more_is_true_when_the_limit_cut_something_off(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    for number in range(5):
        bob.send(ann, str(number))
    seen: list[str] = []
    cursor, more = "0", True
    rounds = 0
    while more:
        document = ann.poll(f"?since={cursor}&limit=2&wait=30")
        assert len(document["messages"]) <= 2
        assert document["meta"]["count"] == 5
        seen += texts(document)
        cursor, more = document["meta"]["cursor"], document["meta"]["more"]
        rounds += 1
    assert (seen, rounds) == (["0", "1", "2", "3", "4"], 3)


def test_a_poll_gives_up_to_100_messages(service: Service) -> None:
    ann = service.new_user()
    for number in range(101):
        ann.send(ann, str(number))
    document = ann.poll("?since=0")
    assert texts(document) == [str(number) for number in range(100)]
    assert document["meta"]["more"] is True
    assert texts(ann.poll(f"?since={document['meta']['cursor']}")) == ["100"]


def test_following_the_cursor_sees_every_message_once(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = ann.page()["meta"]["cursor"]
    seen: list[int] = []
    for number in range(20):
        poll = ann.start("GET", f"{CHATS}?since={cursor}&wait=5&limit=3")
        for _ in range(number % 4):
            bob.start("POST", CHATS, json_body={"user_id": ann.id, "message": "x"})
        service.settle()
        if poll.held:
            service.advance(5)
        seen += [message["seq"] for message in poll.response.json["messages"]]
        cursor = poll.response.json["meta"]["cursor"]
    while (rest := ann.poll(f"?since={cursor}&limit=3"))["messages"]:
        seen += [message["seq"] for message in rest["messages"]]
        cursor = rest["meta"]["cursor"]
    assert seen == list(range(1, 31))


def test_several_polls_of_one_user_are_all_answered(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    polls = [ann.wait() for _ in range(HELD_PER_USER)]
    bob.send(ann, "a")
    assert [texts(poll.response.json) for poll in polls] == [["a"]] * HELD_PER_USER


def test_the_ninth_poll_ends_the_oldest(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    assert HELD_PER_USER == 8
    other = bob.wait()
    polls = []
    for _ in range(8):
        polls.append(ann.wait())
        service.advance(0.5)
    assert all(poll.held for poll in polls)
    polls.append(ann.wait())
    first, *rest = polls
    document = first.response.json
    assert document["messages"] == []
    assert document["meta"]["superseded"] is True
    assert document["meta"]["timed_out"] is False
    assert document["meta"]["waited"] == 4000
    assert all(poll.held for poll in rest)
    polls.append(ann.wait())
    assert [poll.held for poll in polls] == [False, False] + [True] * 8
    bob.send(ann, "a")
    for poll in rest[1:]:
        assert texts(poll.response.json) == ["a"]
        assert "superseded" not in meta(poll)
    assert other.held
    end(service, other)


def test_a_superseded_poll_can_go_on_where_it_was(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    first = ann.wait()
    others = [ann.wait() for _ in range(8)]
    cursor = meta(first)["cursor"]
    bob.send(ann, "a")
    assert texts(ann.poll(f"?since={cursor}")) == ["a"]
    assert not any(poll.held for poll in others)


@pytest.mark.parametrize("most", [0, 2])
def test_beyond_the_polls_of_a_process_one_is_answered_at_once(serve: Serve, most: int) -> None:
    service = serve(max_held=most)
    users = [service.new_user() for _ in range(most + 1)]
    held = [user.wait() for user in users[:most]]
    refused = users[most].get(CHATS + "?since=now&wait=30")
    assert refused.status == 200
    assert refused.json["messages"] == []
    assert refused.json["meta"]["timed_out"] is False
    assert int(refused.header("Retry-After") or "0") > 0
    assert all(poll.held for poll in held)
    users[0].send(users[most], "a")
    cursor = refused.json["meta"]["cursor"]
    assert texts(users[most].poll(f"?since={cursor}&wait=30")) == ["a"]
    if held:
        end(service, *held)


def test_a_draining_server_answers_held_polls(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    client = service.connect()
    client.send(get(CHATS + "?since=now&wait=30", f"Authorization: {ann.bearer}"))
    service.settle()
    assert client.responses() == []
    service.advance(3)
    service.system.notifier.drain()
    service.settle()
    response = client.response()
    assert response.status == 200
    assert response.header("Connection") == "close"
    assert response.header("Retry-After") == str(RETRY_JITTER)
    # twisted.web does not close the connection because of the header.
    assert client.closed() or service.front == STOCK
    document = json.loads(response.body)
    assert document["messages"] == []
    assert (document["meta"]["timed_out"], document["meta"]["waited"]) == (False, 3000)
    bob.send(ann, "a")
    assert texts(ann.poll(f"?since={document['meta']['cursor']}")) == ["a"]


def test_a_draining_server_holds_no_polls(service: Service) -> None:
    ann = service.new_user()
    service.system.notifier.drain()
    response = ann.get(CHATS + "?wait=30")
    assert response.json["messages"] == []
    assert response.header("Retry-After") == str(RETRY_JITTER)
    ann.send(ann, "a")
    assert texts(ann.poll("?since=0&wait=30")) == ["a"]


def test_a_cursor_of_another_history_is_refused(service: Service) -> None:
    ann = service.new_user()
    cursor = ann.poll("?since=0")["meta"]["cursor"]
    other = re.sub("^[a-z2-7]+", "b" * 16, cursor)
    ann.get(f"{CHATS}?since={other}").problem(410, "cursor_epoch")
    ann.get(f"{CHATS}?since={other}&wait=30").problem(410, "cursor_epoch")
    assert service.system.notifier.held == 0


def test_a_cursor_past_the_end_is_refused(service: Service) -> None:
    ann = service.new_user()
    epoch = ann.poll("?since=0")["meta"]["cursor"].partition("-")[0]
    for seq in (1, 2**31, 2**53 - 1):
        ann.get(f"{CHATS}?since={epoch}-{seq}&wait=30").problem(410, "cursor_epoch")
    assert service.system.notifier.held == 0


def test_a_cursor_applies_to_the_callers_inbox(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    for text in "abc":
        ann.send(bob, text)
    ann.send(ann, "own")
    two = bob.poll("?since=0&limit=2")["meta"]["cursor"]
    ann.get(f"{CHATS}?since={two}").problem(410, "cursor_epoch")
    one = ann.page()["meta"]["cursor"]
    assert texts(bob.poll(f"?since={one}")) == ["b", "c"]


@pytest.mark.parametrize(
    "since",
    [
        *("", "1", "-1", "00", "0.0", "NOW", "Now", "none", "%200", "0%20", "x", "-", "aaaaaaaa"),
        *(
            "aaaaaaaa-",
            "aaaaaaaa--1",
            "aaaaaaaa-01",
            "aaaaaaaa-1.",
            "aaaaaaaa-1.2.3",
            "aaaaaaaa-1.01",
            "aaaaaaaa-+1",
            "-1-1",
        ),
        *("AAAAAAAA-1", "aaaaaaa1-1", "aaaaaaa-1", "a" * 33 + "-1", "aaaaaaaa-%D9%A1", "%D9%A0"),
        *("aaaaaaaa-9007199254740992", "aaaaaaaa-" + "9" * 400, "aaaaaaaa-1%0A", "%00", "a" * 5000),
        *(
            "aaaaaaaa-1-01",
            "aaaaaaaa-1-1-1",
            "aaaaaaaa_1",
            "null",
            "0x0",
            "now%0A",
            "%F0%9F%99%82-1",
        ),
    ],
)
def test_a_malformed_cursor_is_refused(stock: Service, since: str) -> None:
    ann = stock.new_user()
    ann.get(f"{CHATS}?since={since}").problem(400, "invalid_cursor")
    ann.get(f"{CHATS}?since={since}&wait=30").problem(400, "invalid_cursor")


def test_a_cursor_that_is_not_utf_8_is_refused(stock: Service) -> None:
    assert stock.new_user().get(f"{CHATS}?since=%FF").status == 400


def test_polling_needs_a_user(service: Service) -> None:
    service.get(CHATS + "?since=0&wait=30").problem(401, "unauthorized")


def test_a_wrong_query_is_refused_before_anything_is_held(service: Service) -> None:
    ann = service.new_user()
    for query in ("?since=now&wait=30&limit=0", "?since=x&wait=30", "?wait=30&page=1"):
        assert ann.get(CHATS + query).status == 400
    assert service.system.notifier.held == 0


def test_a_lost_wake_up_costs_time_and_no_message(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    poll = ann.wait("?since=now&wait=5")
    service.system.bus.lose = True
    bob.send(ann, "a")
    assert poll.held
    service.advance(5)
    cursor = meta(poll)["cursor"]
    assert texts(ann.poll(f"?since={cursor}")) == ["a"]


def test_a_wake_up_without_a_message_leaves_the_poll_held(service: Service) -> None:
    ann = service.new_user()
    poll = ann.wait("?since=now&wait=5")
    service.advance(2)
    for _ in range(3):
        service.system.notifier.wake({ann.id})
        service.settle()
        assert poll.held
    service.advance(3)
    assert (meta(poll)["timed_out"], meta(poll)["waited"]) == (True, 5000)


def test_a_held_poll_ends_with_the_account(service: Service) -> None:
    ann = service.new_user()
    poll = ann.wait()
    ann.request("DELETE", USERS, auth=ann.basic)
    poll.response.problem(401, "unauthorized")
    assert service.system.notifier.held == 0


def test_a_cursor_survives_a_restart(serve: Serve, tmp_path: Any) -> None:
    from tests.api.service import serving

    folder = tmp_path / "lasting"
    folder.mkdir()
    with serving(folder) as before:
        ann: User = before.new_user("ann")
        ann.send(ann, "a")
        cursor = ann.page()["meta"]["cursor"]
        ann.send(ann, "b")
    with serving(folder) as after:
        response = after.get(f"{CHATS}?since={cursor}", auth=ann.bearer)
        assert texts(response.json) == ["b"]

"""How many polls and streams the clients of one address hold, behind proxies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatd.domain.rate_limits import Rates
from tests.api.service import CHATS, OWN, STOCK, TOKENS, Exchange, Serve, Service, User
from tests.test_metrics import value

HERE = {"X-Forwarded-For": "203.0.113.1"}
THERE = {"X-Forwarded-For": "203.0.113.2"}
POLL = CHATS + "?since=now&wait=30"
Hold = Callable[[User, dict[str, str]], Exchange]


def hold_poll(user: User, headers: dict[str, str]) -> Exchange:
    return user.wait(headers=headers)


def hold_stream(user: User, headers: dict[str, str]) -> Exchange:
    headers = {**headers, "Accept": "application/x-ndjson"}
    return user.start_and_settle("GET", CHATS, headers=headers)


def hold_send(user: User, headers: dict[str, str]) -> Exchange:
    """A send that waits until its message is read; the user reads nothing."""
    body = {"user_id": user.id, "message": "hello"}
    return user.start_and_settle(
        "POST", CHATS + "?wait_for=read&wait=30", json_body=body, headers=headers
    )


def behind_proxy(serve: Serve, front: str, **options: object) -> Service:
    """One address may hold two of the four polls."""
    return serve(front, trusted=["127.0.0.0/8"], max_held=4, rates=Rates(), **options)


@pytest.mark.parametrize("front", [STOCK, OWN])
@pytest.mark.parametrize("hold", [hold_poll, hold_stream, hold_send])
def test_one_address_holds_half_of_the_polls_and_streams(
    serve: Serve, front: str, hold: Hold
) -> None:
    service = behind_proxy(serve, front)
    ann, bob = service.new_user("ann"), service.new_user("bob")
    first, second = hold(ann, HERE), hold(bob, HERE)
    for _ in range(2):
        refused = ann.get(POLL, headers=HERE)
        refused.problem(503, "overloaded")
        assert refused.header("Retry-After") == "30"
    stream = {**HERE, "Accept": "text/event-stream"}
    ann.get(CHATS, headers=stream).problem(503, "overloaded")
    count = ann.page()["meta"]["count"]
    hold_send(ann, HERE).response.problem(503, "overloaded")
    assert ann.page()["meta"]["count"] == count
    assert value(service.system.metrics, "chatd_refusals_total", bound="polls_of_address") == 4
    # Neither what does not wait nor others are concerned.
    assert ann.get(CHATS + "?since=now", headers=HERE).status == 200
    assert hold(ann, THERE).held
    first.disconnect()
    assert hold(ann, HERE).held
    ann.get(POLL, headers=HERE).problem(503, "overloaded")
    assert second.held


@pytest.mark.parametrize("front", [STOCK, OWN])
def test_polls_that_have_ended_do_not_count(serve: Serve, front: str) -> None:
    service = behind_proxy(serve, front)
    ann = service.new_user("ann")
    for _ in range(2):
        polls = [hold_poll(ann, HERE) for _ in range(2)]
        ann.send(ann)
        assert [poll.response.status for poll in polls] == [200, 200]
    polls = [hold_poll(ann, HERE) for _ in range(2)]
    service.advance(31)
    assert [poll.response.status for poll in polls] == [200, 200]
    # One that fails, at once and later.
    foreign = CHATS + "?since=aaaaaaaa-1-1&wait=30"
    for _ in range(3):
        ann.get(foreign, headers=HERE).problem(410, "cursor_epoch")
        stream = {**HERE, "Accept": "application/x-ndjson"}
        ann.get(foreign, headers=stream).problem(410, "cursor_epoch")
    polls = [hold_poll(ann, HERE) for _ in range(2)]
    assert ann.request("DELETE", TOKENS).status == 204
    assert [poll.response.status for poll in polls] == [401, 401]
    bob = service.new_user("bob")
    assert hold_poll(bob, HERE).held
    assert hold_poll(bob, HERE).held


def test_networks_count_as_one(serve: Serve) -> None:
    service = behind_proxy(serve, OWN)
    ann = service.new_user("ann")
    for number in range(2):
        assert hold_poll(ann, {"X-Forwarded-For": f"2001:db8:0:{number}::5"}).held
    ann.get(POLL, headers={"X-Forwarded-For": "2001:db8:0:5::5"}).problem(503, "overloaded")
    assert hold_poll(ann, {"X-Forwarded-For": "2001:db8:1::5"}).held


def test_without_proxies_and_without_rate_limits_there_is_no_such_bound(serve: Serve) -> None:
    for options in ({"rates": Rates()}, {"trusted": ["127.0.0.0/8"]}):
        service = serve(OWN, max_held=4, **options)
        ann = service.new_user("ann")
        polls = [hold_poll(ann, HERE) for _ in range(4)]
        assert all(poll.held for poll in polls)

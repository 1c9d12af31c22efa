"""Clients that disconnect at any step of a request.

A send completes or fails as a whole (contract); nothing of a request is left behind (architecture,
invariant 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.service import CHATS, SERVERS, TOKENS, USERS, Exchange, Serve, Service, User, texts
from tests.doubles import SteppedExecutor

KEY = {"Idempotency-Key": "key"}
MAX_STEPS = 30
"""More steps than any request needs."""


class Stepping:
    """Runs a service with `SteppedExecutor`s, one step at a time."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def step(self) -> bool:
        """Run the next step of a thread or of the reactor; False if there is none."""
        system = self._service.system
        if any(call.getTime() <= system.clock.seconds() for call in system.clock.getDelayedCalls()):
            system.turn()
            return True
        for worker in (system.hashing, system.reader, system.writer):
            if worker.done:
                worker.deliver()
                return True
            if worker.pending:
                worker.work()
                return True
        return False


Begin = Callable[[User, User], Exchange]


def disconnect_at_each_step(
    serve: Serve, front: str, begin: Begin
) -> Iterator[tuple[Service, User, User]]:
    """Yield services whose client disconnected after 0, 1, 2 ... steps of the request of `begin`.

    The last one is that whose request was answered or held. Each service is settled.
    """
    for steps in range(MAX_STEPS):
        service = serve(front, worker=SteppedExecutor)
        ann, bob = service.new_user("ann"), service.new_user("bob")
        service.settle()
        exchange = begin(ann, bob)
        stepping = Stepping(service)
        progressed = all(stepping.step() for _ in range(steps))
        ended = not exchange.held or not progressed
        if exchange.held:
            exchange.disconnect()
        service.settle()
        yield service, ann, bob
        if ended:
            return
    pytest.fail("the request did not end")


def assert_clean(service: Service) -> None:
    """Assert that nothing of the request remains."""
    service.settle()
    assert service.system.notifier.held == 0
    assert service.system.notifier._waiters == {}
    service.advance(2.5)  # pending `last_seen_at` values are written
    assert not service.system.timers()


def send(ann: User, bob: User) -> Exchange:
    return bob.start("POST", CHATS, json_body={"user_id": ann.id, "message": "x"}, headers=KEY)


def basic_send(ann: User, bob: User) -> Exchange:
    return bob.start(
        "POST",
        CHATS,
        json_body={"user_id": ann.id, "message": "x"},
        headers=KEY,
        auth=bob.basic,
    )


@pytest.mark.parametrize("front", SERVERS)
@pytest.mark.parametrize("begin", [send, basic_send])
def test_a_send_is_all_or_nothing(serve: Serve, front: str, begin: Begin) -> None:
    stored: list[int] = []
    for service, ann, bob in disconnect_at_each_step(serve, front, begin):
        assert_clean(service)
        page = ann.page()
        count = page["meta"]["count"]
        assert texts(page) == ["x"] * count
        assert count <= 1
        stored.append(count)
        # Repeating it with its key shows the outcome, and never stores it twice.
        again = begin(ann, bob)
        service.settle()
        assert again.response.status == (200 if count else 201)
        assert ann.page()["meta"]["count"] == 1
        assert_clean(service)
    assert stored[0] == 0
    assert stored[-1] == 1
    assert stored == sorted(stored), "a later step stored less"
    assert len(stored) > 4


@pytest.mark.parametrize("front", SERVERS)
def test_a_send_wakes_its_reader_after_a_disconnect(serve: Serve, front: str) -> None:
    woken = []
    for steps in range(MAX_STEPS):
        service = serve(front, worker=SteppedExecutor)
        ann, bob = service.new_user("ann"), service.new_user("bob")
        poll = ann.wait()
        sent = send(ann, bob)
        stepping = Stepping(service)
        progressed = all(stepping.step() for _ in range(steps))
        if sent.held:
            sent.disconnect()
        service.settle()
        count = ann.page()["meta"]["count"]
        assert poll.held is (count == 0)
        if poll.held:
            poll.disconnect()
        else:
            assert texts(poll.response.json) == ["x"]
        assert_clean(service)
        woken.append(count)
        if not progressed:
            break
    assert woken[0] == 0
    assert woken[-1] == 1


@pytest.mark.parametrize("front", SERVERS)
@pytest.mark.parametrize("query", ["?since=now&wait=30", "?since=0&wait=30", "?since=0", ""])
@pytest.mark.parametrize("credentials", ["bearer", "basic"])
def test_a_poll_is_cleaned_up_after_a_disconnect(
    serve: Serve, front: str, query: str, credentials: str
) -> None:
    def begin(ann: User, bob: User) -> Exchange:
        return ann.start("GET", CHATS + query, auth=getattr(ann, credentials))

    points = 0
    for service, ann, bob in disconnect_at_each_step(serve, front, begin):
        assert_clean(service)
        bob.send(ann, "after")
        assert texts(ann.poll("?since=0")) == ["after"]
        points += 1
    # Basic takes more steps: one thread looks up the account, another one hashes.
    assert points > (4 if credentials == "basic" else 2)


@pytest.mark.parametrize("front", SERVERS)
def test_a_poll_is_cleaned_up_after_a_disconnect_during_its_wake_up(
    serve: Serve, front: str
) -> None:
    for steps in range(MAX_STEPS):
        service = serve(front, worker=SteppedExecutor)
        ann, bob = service.new_user("ann"), service.new_user("bob")
        poll = ann.wait("?since=now&wait=30")
        sent = send(ann, bob)
        stepping = Stepping(service)
        progressed = all(stepping.step() for _ in range(steps))
        if poll.held:
            poll.disconnect()
        service.settle()
        assert sent.response.status == 201
        assert_clean(service)
        assert texts(ann.poll("?since=0")) == ["x"]
        if not progressed:
            break


REQUESTS: dict[str, Begin] = {
    "delete": lambda ann, bob: bob.start("DELETE", USERS),
    "revoke": lambda ann, bob: bob.start("DELETE", TOKENS),
    "log in": lambda ann, bob: bob.start(
        "POST", TOKENS, json_body={"username": "bob", "password": "password"}, auth=None
    ),
    "wrong password": lambda ann, bob: bob.start(
        "POST", TOKENS, json_body={"username": "bob", "password": "wrong"}, auth=None
    ),
    "register": lambda ann, bob: bob.start(
        "POST", USERS, json_body={"username": "cat", "email": "c@c", "password": "zzzzz"}
    ),
    "user": lambda ann, bob: bob.start("GET", USERS + f"?user_id={ann.id}"),
    "name": lambda ann, bob: bob.start("GET", USERS + "?username=ann"),
    "self": lambda ann, bob: bob.start("GET", USERS),
    "unknown token": lambda ann, bob: bob.start("GET", USERS, auth="Bearer x"),
    "ready": lambda ann, bob: bob.start("GET", "/readyz"),
    "ready for operators": lambda ann, bob: bob.start("GET", "/readyz", admin=True),
    "page": lambda ann, bob: bob.start("GET", CHATS + "?page=2"),
}


@pytest.mark.parametrize("front", SERVERS)
@pytest.mark.parametrize("begin", REQUESTS.values(), ids=REQUESTS)
def test_any_request_survives_a_disconnect(serve: Serve, front: str, begin: Begin) -> None:
    for service, ann, *_ in disconnect_at_each_step(serve, front, begin):
        assert_clean(service)
        assert ann.get(CHATS).status == 200
        assert service.get("/readyz").status == 200


@pytest.mark.parametrize("front", SERVERS)
def test_a_deletion_ends_the_polls_after_a_disconnect(serve: Serve, front: str) -> None:
    outcomes = []
    for steps in range(MAX_STEPS):
        service = serve(front, worker=SteppedExecutor)
        ann = service.new_user("ann")
        poll = ann.wait()
        deletion = ann.start("DELETE", USERS, auth=ann.basic)
        stepping = Stepping(service)
        progressed = all(stepping.step() for _ in range(steps))
        if deletion.held:
            deletion.disconnect()
        service.settle()
        deleted = service.get(USERS, auth=ann.basic).status == 401
        assert poll.held is not deleted
        if poll.held:
            poll.disconnect()
        else:
            poll.response.problem(401, "unauthorized")
        assert_clean(service)
        outcomes.append(deleted)
        if not progressed:
            break
    assert (outcomes[0], outcomes[-1]) == (False, True)


def test_one_of_several_clients_with_the_same_password_may_disconnect(serve: Serve) -> None:
    service = serve(worker=SteppedExecutor)
    ann = service.new_user("ann")
    requests: list[Any] = [ann.start("GET", CHATS, auth=ann.basic) for _ in range(3)]
    stepping = Stepping(service)
    for _ in range(3):
        stepping.step()
    requests[0].disconnect()
    service.settle()
    assert [each.response.status for each in requests[1:]] == [200, 200]
    assert_clean(service)

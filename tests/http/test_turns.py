"""Turns of the reactor: which requests are handled in one, and in which order the others follow."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from chatd.http.server import Server
from chatd.http.turns import FIRST_SECONDS, TURN_SECONDS, ClientOf, Turns
from chatd.runtime.turn import WHOLE_SECONDS, turn_of
from tests.http.raw_client import HalfClosing, Leaf, RawClient, brief, get, problem


class Shared:
    """A server whose requests take time, and its clients."""

    def __init__(
        self,
        seconds: float = TURN_SECONDS / 4,
        client_of: ClientOf | None = None,
    ) -> None:
        self.clock = Clock()
        self.seconds = seconds
        self.handled: list[str] = []
        self.server = Server(
            resource=Leaf(self._respond),
            clock=self.clock,
            limits=HTTPLimits(),
            problem=problem,
            client_of=client_of,
        )

    def _respond(self, request: Request) -> object:
        self.clock.rightNow += self.seconds
        self.handled.append(request.uri.decode())
        return brief(request)

    def connect(self, host: str = "192.0.2.1") -> RawClient:
        address = IPv4Address("TCP", host, 1)
        transport = HalfClosing(peerAddress=address)  # type: ignore[no-untyped-call]
        return RawClient(server=self.server, transport=transport)

    def turn(self) -> list[str]:
        """Let the next turn happen; returns what was handled in it."""
        before = len(self.handled)
        calls = [call for call in self.clock.calls if call.func.__name__ == "_next_turn"]
        for call in calls:
            self.clock.calls.remove(call)
            call.called = 1
            call.func()
        return self.handled[before:]


def test_a_turn_has_an_end() -> None:
    shared = Shared()
    clients = [shared.connect() for _ in range(40)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    assert len(shared.handled) == 4
    order = [f"/{number}" for number in range(40)]
    assert shared.turn() == order[4:][:4]
    while shared.turn():
        pass
    assert shared.handled == order
    assert all(len(client.responses()) == 1 for client in clients)


def test_who_comes_later_waits_for_one_request_of_each_other_connection() -> None:
    shared = Shared()
    flooding = [shared.connect() for _ in range(3)]
    for number, client in enumerate(flooding):
        client.send(b"".join(get(f"/{number}.{each}") for each in range(30)))
    innocent = shared.connect()
    innocent.send(get("/innocent"))
    assert "/innocent" not in shared.handled
    done = len(shared.handled)
    while "/innocent" not in shared.handled:
        assert shared.turn()
    assert len(shared.handled) - done <= 4
    while shared.turn():
        pass
    for number, client in enumerate(flooding):
        bodies = [response.body.decode() for response in client.responses()]
        assert bodies == [f"/{number}.{each}" for each in range(30)]


@pytest.mark.parametrize("hosts", ["192.0.2.1", "2001:db8:0:{number:x}::1"])
def test_addresses_take_turns(hosts: str) -> None:
    shared = Shared(seconds=1.0)
    for number in range(100):
        shared.connect(hosts.format(number=number)).send(get(f"/{number}"))
    innocent = shared.connect("192.0.2.2")
    innocent.send(get("/innocent"))
    assert len(shared.handled) == 1
    handled = shared.turn() + shared.turn()
    assert len(handled) == 2
    assert "/innocent" in handled
    while shared.turn():
        pass
    assert len(shared.handled) == 101


def test_clients_behind_a_proxy_take_turns() -> None:
    asked: list[bytes] = []

    def client_of(host: str, raw: bytes) -> str:
        assert host == "192.0.2.1"
        asked.append(raw)
        return raw.partition(b"X-Client: ")[2].partition(b"\r\n")[0].decode()

    shared = Shared(seconds=1.0, client_of=client_of)
    for number in range(100):
        shared.connect().send(get(f"/{number}", "X-Client: 203.0.113.1"))
    shared.connect().send(get("/innocent", "X-Client: 203.0.113.2"))
    posting = shared.connect()
    head = b"POST /body HTTP/1.1\r\nHost: a\r\nX-Client: 203.0.113.3\r\nContent-Length: 1\r\n\r\n"
    posting.send(head)
    assert "/innocent" in shared.turn() + shared.turn() + shared.turn()
    # The head is known now, and tells whose the body is.
    posting.send(b"1")
    assert b"X-Client: 203.0.113.3\r\n" in asked[-1]
    assert b"POST" not in asked[-1]
    assert "/body" in shared.turn() + shared.turn()
    while shared.turn():
        pass
    assert len(shared.handled) == 102


def test_a_quiet_server_handles_requests_at_once() -> None:
    shared = Shared()
    client = shared.connect()
    for number in range(100):
        client.send(get(f"/{number}"))
        assert len(shared.handled) == number + 1
        shared.clock.advance(0)
    assert shared.server.state.turns.queued == 0


def test_a_connection_that_is_closed_while_it_waits_is_left_out() -> None:
    shared = Shared(seconds=1.0)
    clients = [shared.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    assert len(shared.server.state.turns) == 3
    clients[2].disconnect()
    while shared.turn():
        pass
    assert shared.handled == ["/0", "/1", "/3"]


def test_a_connection_that_waits_is_read_up_to_a_limit() -> None:
    shared = Shared(seconds=1.0)
    clients = [shared.connect() for _ in range(2)]
    for client in clients:
        client.send(get("/a"))
    waiting = clients[1]
    assert waiting.reading()
    waiting.send(get("/b") * 100)
    assert not waiting.reading()
    while shared.turn():
        pass
    assert waiting.reading()
    assert len(waiting.responses()) == 101


def test_a_turn_ends_soon_whenever_it_began() -> None:
    """Nobody tells when it began, so it may share its first requests' time with the one before."""
    shared = Shared()
    for _ in range(50):
        shared.connect().send(get("/a"))
        shared.clock.rightNow += 0.9 * TURN_SECONDS
        shared.turn()
        before = len(shared.handled)
        clients = [shared.connect() for _ in range(12)]
        for client in clients:
            client.send(get("/b"))
        assert 4 <= len(shared.handled) - before <= 8
        while shared.turn():
            pass


def test_nothing_is_left_when_the_last_connection_is_closed() -> None:
    shared = Shared(seconds=1.0)
    clients = [shared.connect() for _ in range(4)]
    for client in clients:
        client.send(get())
    for client in clients:
        client.disconnect()
    assert shared.clock.getDelayedCalls() == []
    assert len(shared.server.state.turns) == 0


class Counting:
    def __init__(self, turns: Turns, times: int) -> None:
        self.turns, self.times, self.taken = turns, times, 0

    def take_turn(self) -> None:
        self.taken += 1
        if self.taken < self.times:
            self.turns.wait(self, "a")


@pytest.mark.parametrize("times", [1, 5])
def test_those_that_queue_again_have_their_next_turn_later(times: int) -> None:
    clock: Any = Clock()
    turns = Turns(clock)
    waiting = Counting(turns, times)
    turns.wait(waiting, "a")
    for number in range(times):
        assert waiting.taken == number
        clock.calls.pop(0).func()
    assert waiting.taken == times


def test_requests_that_take_no_time_are_all_handled_in_one_turn() -> None:
    shared = Shared(seconds=0.0)
    for number in range(50):
        shared.connect().send(get(f"/{number}"))
    assert len(shared.handled) == 50
    assert shared.server.state.turns.queued == 0


def test_an_address_of_which_nothing_waits_is_served_at_once() -> None:
    shared = Shared()
    flooding = [shared.connect() for _ in range(20)]
    for number, client in enumerate(flooding):
        client.send(get(f"/{number}"))
    assert len(shared.handled) == 4
    innocent = shared.connect("192.0.2.2")
    for handled in (5, 5, 5):
        # The second one has its turn like the others.
        innocent.send(get("/innocent"))
        assert len(shared.handled) == handled
    assert shared.handled[-1] == "/innocent"
    assert "/innocent" in shared.turn()
    shared.connect("192.0.2.3").send(get("/another"))
    assert shared.handled[-1] == "/another"
    while shared.turn():
        pass
    assert shared.handled.count("/innocent") == 3


def test_so_are_not_any_number_of_addresses() -> None:
    shared = Shared(seconds=FIRST_SECONDS / 4)
    for number in range(100):
        shared.connect(f"192.0.2.{number}").send(get(f"/{number}"))
    assert len(shared.handled) <= 1 + 1 + 4
    shared = Shared(seconds=TURN_SECONDS)
    for number in range(100):
        shared.connect(f"2001:db8:0:{number:x}::1").send(get(f"/{number}"))
    assert len(shared.handled) == 1


def test_other_work_of_a_turn_leaves_less_time() -> None:
    shared = Shared()
    for number in range(40):
        shared.connect().send(get(f"/{number}"))
    before = len(shared.handled)
    turn_of(shared.clock).begin(shared.clock.seconds())
    shared.clock.rightNow += WHOLE_SECONDS - TURN_SECONDS / 2
    assert len(shared.turn()) == 2
    assert before == 4

"""The table of a connection's states. All tests here check it: see conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatd.http.connection_states import (
    CLOSED,
    LINGERING,
    NEW,
    READING,
    RESPONDING,
    TRANSITIONS,
)
from tests.http.raw_client import Held, RawClient, brief, get, post


def client(*data: bytes) -> RawClient:
    """A connection that has received `data` and whose requests are answered at once."""
    connection = RawClient(brief)
    for piece in data:
        connection.send(piece)
    return connection


def closed_while_responding() -> None:
    """The client disconnects during a request."""
    connection = RawClient(Held())
    connection.send(get())
    connection.disconnect()


PATHS: dict[tuple[int, int], Callable[[], object]] = {
    (NEW, READING): lambda: client(b"GET"),
    (NEW, RESPONDING): lambda: client(get()),
    (NEW, LINGERING): lambda: client(b"\n"),
    (NEW, CLOSED): lambda: client().disconnect(),
    (READING, RESPONDING): lambda: client(post(b"x")),
    (READING, LINGERING): lambda: client(b"GET", b"\0"),
    (READING, CLOSED): lambda: client(b"GET").disconnect(),
    (RESPONDING, READING): lambda: client(get()),
    (RESPONDING, LINGERING): lambda: client(get("/", "Connection: close") + b"more"),
    (RESPONDING, CLOSED): closed_while_responding,
    (LINGERING, CLOSED): lambda: client(b"\n").disconnect(),
}


@pytest.mark.parametrize("transition", PATHS)
def test_a_transition_happens(
    transition: tuple[int, int], transitions: set[tuple[int, int]]
) -> None:
    PATHS[transition]()
    assert transition in transitions


def test_there_are_no_other_transitions() -> None:
    assert PATHS.keys() == TRANSITIONS

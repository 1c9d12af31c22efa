"""How servers are spoken to: the roles that a workload has connections play."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from bench.delivery_check import Received
from bench.load_client import Connection, Loop


class Unexpected(Exception):
    """An answer that no workload can do anything with."""


class Follower(Protocol):
    """Holds one poll after the other and so receives all messages to one user."""

    connection: Connection

    def join(self) -> bytes | None:
        """A request to be made once, before the polls; its answer goes to `receive` too."""

    def poll(self) -> bytes:
        """The next poll."""

    def receive(self, status: int, head: bytes, body: bytes) -> Iterable[Received]:
        """The messages in an answer; raises `Unexpected`."""


class Sender(Protocol):
    """Sends one message after the other."""

    connection: Connection

    def send(self, recipient: int, text: str) -> bytes:
        """A request that sends to the user numbered `recipient`."""

    def acknowledge(self, status: int, head: bytes, body: bytes) -> bytes | None:
        """None if the answer acknowledges the message, else what to ask for to learn it."""


class Reader(Protocol):
    """Fetches the newest page of one user again and again."""

    connection: Connection

    def read(self) -> bytes:
        """The request."""

    def check(self, status: int, head: bytes, body: bytes) -> None:
        """Raise `Unexpected` unless the answer is the page that was asked for."""


class Dialect(Protocol):
    """What one server understands; users are numbered from 0."""

    def follower(self, loop: Loop, user: int) -> Follower:
        """A follower of the user's messages."""

    def sender(self, loop: Loop, number: int) -> Sender:
        """A sender; each has an account of its own."""

    def reader(self, loop: Loop, user: int, page: int) -> Reader | None:
        """A reader of a page (from 1) of the user's messages; None if the server cannot."""

    def counts(self, users: Iterable[int]) -> int | None:
        """How many messages these users have in all; None if the server cannot say."""

"""Interfaces of the protocols that servers speak, by role: follower, stream, sender, reader."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

from bench.delivery_check import Received
from bench.load_client import Connection, LoadClient


class UnexpectedResponse(Exception):
    """A response other than the workload expects."""


class Follower(Protocol):
    """Polls repeatedly and so receives all messages to one user."""

    connection: Connection

    def join(self) -> bytes | None:
        """A request to send once, before the first poll; its response goes to `receive`, too."""

    def poll(self) -> bytes:
        """The next poll."""

    def receive(self, status: int, head: bytes, body: bytes) -> Iterable[Received]:
        """The messages in a response; raises `UnexpectedResponse`."""


class Stream(Protocol):
    """An open stream, over which a server sends all messages to one user without being asked."""

    socket: socket.socket

    def receive(self, data: bytes) -> Iterable[Received]:
        """The messages that are complete with these bytes; raises `UnexpectedResponse`."""


class Sender(Protocol):
    """Sends messages, one at a time."""

    connection: Connection

    def send(self, recipient: int, text: str) -> bytes:
        """A request that sends a message to the user numbered `recipient`."""

    def acknowledge(self, status: int, head: bytes, body: bytes) -> bytes | None:
        """None if the response acknowledges the message, else a request to send next."""


class Reader(Protocol):
    """Fetches a page of one user repeatedly."""

    connection: Connection

    def read(self) -> bytes:
        """The request."""

    def check(self, status: int, head: bytes, body: bytes) -> None:
        """Raise `UnexpectedResponse` unless the response is the requested page."""


class SendProtocol(Protocol):
    """What the protocols of polls and streams have in common."""

    def sender(self, client: LoadClient, number: int) -> Sender:
        """A sender; each number has its own account."""


class StreamProtocol(SendProtocol, Protocol):
    """The protocol of a server that has streams; users are numbered from 0."""

    def stream(self, user: int) -> Stream:
        """Open a stream; blocks until the server sends the user's messages over it."""


class ChatProtocol(SendProtocol, Protocol):
    """The protocol of a server that has polls; users are numbered from 0."""

    def follower(self, client: LoadClient, user: int) -> Follower:
        """A follower of a user's messages."""

    def reader(self, client: LoadClient, user: int, page: int) -> Reader | None:
        """A reader of a page (from 1) of a user's messages; None if the server has no pages."""

    def counts(self, users: Iterable[int]) -> int | None:
        """The total number of messages of these users; None if the server cannot tell."""

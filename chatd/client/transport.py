"""What `Follow` needs of a way to receive messages: long polls, or a stream."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from chatd.client.values import Change, Message


class Received(Struct, frozen=True):
    """The next messages, oldest first, and the changes after them, if there are any.

    `cursor` is the position after them. `count` is set where they reach the end of the inbox, and
    is then its number of messages. `pause` is how many seconds to wait before receiving again.
    `settled` is False for the beginning of a connection that may still prove useless.
    """

    messages: tuple[Message, ...]
    cursor: str
    count: int | None = None
    pause: float = 0.0
    changes: tuple[Change, ...] = ()
    settled: bool = True


class Transport(Protocol):
    """A way to receive messages."""

    async def receive(self, cursor: str) -> Received:
        """Wait for what comes after `cursor`, which is that of the `Received` before.

        Raises `ChatError`. Cancelling it closes the connection.
        """

    def close(self) -> None:
        """Close a connection that is kept between calls."""

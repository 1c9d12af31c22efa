"""What was sent and what arrived: nothing may be lost, nothing may come twice or out of order."""

from __future__ import annotations

import secrets
from array import array
from typing import NamedTuple


class Received(NamedTuple):
    """A message as a follower got it; `seq` is None where the server numbers nothing."""

    text: str
    seq: int | None


class Tally:
    """The messages of one run, each known by its number and by when it was meant to be sent.

    A text carries the run's name and the message's number, so that what an earlier run left in an
    inbox is not counted.
    """

    def __init__(self, followers: int, size: int = 40) -> None:
        self.name = secrets.token_hex(4)
        self._size = size
        self._stamps = array("d")
        self._recipients = array("l")
        self._acknowledged = bytearray()
        self._seen = bytearray()
        self._last: list[int | None] = [None] * followers
        self.delays: list[tuple[float, float]] = []
        """For each message that arrived: when it was meant to be sent, and seconds until here."""
        self.arrived = 0
        self.doubled = 0
        self.misrouted = 0
        self.gaps = 0

    def __len__(self) -> int:
        return len(self._stamps)

    def send(self, recipient: int, stamp: float) -> tuple[int, str]:
        """Number and text of a new message to the follower `recipient`."""
        number = len(self._stamps)
        self._stamps.append(stamp)
        self._recipients.append(recipient)
        self._acknowledged.append(0)
        self._seen.append(0)
        return number, f"~{self.name}~{number}~".ljust(self._size, "x")

    def acknowledge(self, number: int) -> None:
        """The server has promised to deliver the message."""
        self._acknowledged[number] = 1

    def receive(self, follower: int, received: Received, at: float) -> None:
        """A message arrived at `follower`."""
        text, seq = received
        if seq is not None:
            last = self._last[follower]
            if last is not None and seq != last + 1:
                self.gaps += 1
            self._last[follower] = seq
        parts = text.split("~", 3)
        if len(parts) != 4 or parts[1] != self.name:
            return
        number = int(parts[2])
        if self._recipients[number] != follower:
            self.misrouted += 1
        elif self._seen[number]:
            self.doubled += 1
        else:
            self._seen[number] = 1
            self.arrived += 1
            stamp = self._stamps[number]
            self.delays.append((stamp, at - stamp))

    @property
    def acknowledged(self) -> int:
        """How many messages the server has promised to deliver."""
        return sum(self._acknowledged)

    @property
    def lost(self) -> int:
        """How many of those have not arrived."""
        return sum(
            promised and not seen
            for promised, seen in zip(self._acknowledged, self._seen, strict=True)
        )

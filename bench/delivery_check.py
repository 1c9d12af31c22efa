"""`DeliveryCheck`: counts messages that are lost, duplicated, misrouted or out of order."""

from __future__ import annotations

import secrets
from array import array
from typing import NamedTuple


class Received(NamedTuple):
    """A message as received by a follower; `seq` is None if the server does not number messages."""

    text: str
    seq: int | None


class DeliveryCheck:
    """Tracks the messages of one run, by number and by when they were due to be sent.

    The text of a message contains the name of the run and the number, so messages that an earlier
    run left in an inbox are not counted.
    """

    def __init__(self, followers: int, size: int = 40) -> None:
        self.name = secrets.token_hex(4)
        self._size = size
        self._due_times = array("d")
        self._recipients = array("l")
        self._acknowledged = bytearray()
        self._seen = bytearray()
        self._last: list[int | None] = [None] * followers
        self.latencies: list[tuple[float, float]] = []
        """For each message that arrived: when it was due, and the seconds from then on."""
        self.arrived = 0
        self.duplicated = 0
        self.misrouted = 0
        self.gaps = 0

    def __len__(self) -> int:
        return len(self._due_times)

    def send(self, recipient: int, due: float) -> tuple[int, str]:
        """Register a new message to the follower `recipient`; its number and text."""
        number = len(self._due_times)
        self._due_times.append(due)
        self._recipients.append(recipient)
        self._acknowledged.append(0)
        self._seen.append(0)
        return number, f"~{self.name}~{number}~".ljust(self._size, "x")

    def acknowledge(self, number: int) -> None:
        """Record that the server acknowledged the message."""
        self._acknowledged[number] = 1

    def receive(self, follower: int, received: Received, at: float) -> None:
        """Record that `follower` received a message."""
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
            self.duplicated += 1
        else:
            self._seen[number] = 1
            self.arrived += 1
            due = self._due_times[number]
            self.latencies.append((due, at - due))

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged messages."""
        return sum(self._acknowledged)

    @property
    def lost(self) -> int:
        """The number of acknowledged messages that have not arrived."""
        return sum(
            acknowledged and not seen
            for acknowledged, seen in zip(self._acknowledged, self._seen, strict=True)
        )

    def figures(self) -> dict[str, float]:
        """What the server did with the messages, at the end of a run."""
        acknowledged = self.acknowledged
        return {
            "acknowledged": acknowledged,
            "unacknowledged": len(self) - acknowledged,
            "arrived": self.arrived,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "misrouted": self.misrouted,
            "gaps": self.gaps,
        }

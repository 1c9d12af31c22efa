"""What a process knows of the others from their heartbeats, to find out that it has missed any."""

from __future__ import annotations

from typing import Final

from chatd.bus.nats_payloads import Heartbeat, Removal, Revocation

SILENT_SECONDS: Final = 2.5
"""A process that sends a heartbeat each second is silent after this long."""
MAX_PEERS: Final = 10_000
"""Further processes are not watched; there are never so many."""


class Peer:
    """The last that was heard of another process."""

    __slots__ = ("generation", "heard_at", "number", "revocations")

    def __init__(self, beat: Heartbeat, heard_at: float) -> None:
        self.generation = beat.generation
        self.number = beat.number
        self.revocations = beat.revocations
        self.heard_at = heard_at


class Peers:
    """The other processes. Times are in seconds."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def on_heartbeat(self, beat: Heartbeat, now: float) -> bool:
        """Whether something that the process sent before may be missing."""
        known = self._peers.get(beat.node)
        if known is None:
            if len(self._peers) < MAX_PEERS:
                self._peers[beat.node] = Peer(beat, now)
            # It has just connected again, and may have sent something in vain before.
            return beat.generation > 1 and beat.number == 1
        is_next = beat.generation == known.generation and beat.number == known.number + 1
        missing = not is_next or beat.revocations != known.revocations
        known.generation, known.number = beat.generation, beat.number
        known.revocations = beat.revocations
        known.heard_at = now
        return missing

    def on_revocation(self, revocation: Revocation | Removal) -> bool:
        """Whether another revocation that the process sent before is missing."""
        known = self._peers.get(revocation.node)
        if known is None or known.generation != revocation.generation:
            # The next heartbeat tells.
            return False
        missing = revocation.revocations != known.revocations + 1
        known.revocations = revocation.revocations
        return missing

    def on_goodbye(self, node: str) -> None:
        """The process has told everything and stops."""
        self._peers.pop(node, None)

    def forget_silent(self, now: float) -> bool:
        """Forget the processes that have been silent for too long; whether there were any.

        They may have died between a commit and its announcement.
        """
        silent = [
            node for node, peer in self._peers.items() if now - peer.heard_at > SILENT_SECONDS
        ]
        for node in silent:
            del self._peers[node]
        return bool(silent)

    def excuse(self, now: float) -> None:
        """This process was busy or stopped: what others sent meanwhile is yet to be received."""
        for peer in self._peers.values():
            peer.heard_at = now

    def clear(self) -> None:
        """Forget all."""
        self._peers.clear()

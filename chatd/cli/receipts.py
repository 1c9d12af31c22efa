"""How far messages of a conversation came: what the other has read, and what is read here."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from chatd.client import ChatClient, ChatError


class OwnMessages:
    """Whether the last message to the peer was delivered or read."""

    def __init__(self) -> None:
        self._last = self._delivered = self._read = 0

    @property
    def state(self) -> str:
        """`read`, `delivered`, or empty."""
        if not self._last:
            return ""
        if self._last <= self._read:
            return "read"
        return "delivered" if self._last <= self._delivered else ""

    def sent(self, seq: int) -> None:
        """A message of this place in the peer's inbox was sent."""
        self._last = max(self._last, seq)

    def moved(self, delivered: int, read: int) -> None:
        """The peer has received, and read, up to these places."""
        self._delivered = max(self._delivered, delivered)
        self._read = max(self._read, read)


class ReadMarker:
    """Marks what is shown as read, with one request at a time."""

    def __init__(self, client: ChatClient, peer_id: int) -> None:
        self._client = client
        self._peer_id = peer_id
        self._wanted = self._done = 0
        self._running: Deferred[None] | None = None

    def mark(self, seq: int) -> None:
        """What the peer sent is shown up to this place of the account's inbox."""
        self._wanted = max(self._wanted, seq)
        if self._running is None and self._wanted > self._done:
            running = self._running = Deferred.fromCoroutine(self._run())
            if running.called:
                self._running = None

    def stop(self) -> None:
        """Mark nothing any more."""
        if self._running is not None:
            self._running.addErrback(lambda _: None)
            self._running.cancel()

    async def _run(self) -> None:
        try:
            while self._wanted > self._done:
                seq = self._wanted
                await self._client.mark_read(self._peer_id, seq)
                self._done = seq
        except ChatError:
            # A service that does not know it, or that is away: the next message tries again.
            pass
        finally:
            self._running = None

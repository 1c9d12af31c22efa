"""`Following`: a base class for tests that follow an inbox."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from chatd.client import Follow, FollowTransport
from tests.client.scripted import Harness, Step


class Following:
    """Follows the inbox of a scripted service by `transport`."""

    transport: FollowTransport

    def setup_method(self) -> None:
        self.harness = Harness()
        self.service = self.harness.service
        self.seen: list[int] = []
        self.reading: Deferred[None] = succeed(None)

    def teardown_method(self) -> None:
        _ = self.reading.addErrback(lambda f: f.trap(CancelledError))
        self.reading.cancel()

    def follow(self, *script: Step, since: Any = "0", **options: Any) -> Follow:
        """Follow while the service responds from the script; collect seqs in `seen`."""
        follow = self.open(*script, since=since, **options)
        self.read(follow)
        self.harness.http.flush()
        return follow

    def open(self, *script: Step, since: Any = "0", **options: Any) -> Follow:
        """A follow that nobody reads yet."""
        self.service.script = [*script]
        follow: Follow = self.harness.client.follow(since, transport=self.transport, **options)
        return follow

    def read(self, follow: Follow) -> None:
        async def reading() -> None:
            async for message in follow:
                self.seen.append(message.seq)

        self.reading = Deferred.fromCoroutine(reading())

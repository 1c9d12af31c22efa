"""The interface for handling frequent requests without a `Request`."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.python.failure import Failure

from chatd.http.head import Head
from chatd.http.request_channel import RequestChannel


class PendingResponse(Protocol):
    """What a connection holds while a response is prepared: a `Request`, or a lighter object."""

    def connectionLost(self, reason: Failure) -> None:
        """The client has disconnected."""
        ...


class FastChannel(RequestChannel, Protocol):
    """A connection, as a `FastHandler` uses it."""

    def hold(self, pending: PendingResponse) -> None:
        """Have `pending` told if the client disconnects before the response."""

    def claim_unsent(self, owner: int | None) -> None:
        """What was written was for this account."""

    def respond(self, headers: bytes, body: bytes, status: int = 200) -> None:
        """Write a whole response on a connection that stays open, as `Request.respond` does."""


class FastHandler(Protocol):
    """Handles requests that need nothing of a `Request`; all others go the ordinary way.

    Called with the connection, the head and the body. Returns False, without having had an effect,
    to have the request handled by the server's resource. Otherwise it has responded, or has called
    `FastChannel.hold` and responds later.
    """

    def __call__(self, channel: Any, head: Head, body: bytes) -> bool: ...

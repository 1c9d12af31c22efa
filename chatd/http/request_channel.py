"""The interfaces between a request and the objects around it."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from chatd.http.site import Site


class RequestChannel(Protocol):
    """The connection of a request, with what the request uses of it."""

    transport: Any
    site: Site

    def claim_unsent(self, owner: int | None) -> None:
        """What was written was for this account."""

    def body_forgotten(self) -> None:
        """The request has released its body."""

    def write(self, data: bytes) -> None:
        """Send part of the response."""

    def keep_alive(self) -> bool:
        """Whether the connection stays open after the response."""

    def close_after_response(self) -> None:
        """Have `keep_alive` return False."""

    def response_finished(self, keep_alive: bool) -> None:
        """The response has been written; the next request may be read if `keep_alive`."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`IConsumer`."""

    def unregisterProducer(self) -> None:
        """`IConsumer`."""

    def loseConnection(self) -> None:
        """Close the connection after what was written has been sent."""

    def abort(self) -> None:
        """Close the connection at once."""

    def getPeer(self) -> IAddress:
        """The client's address."""

    def getHost(self) -> IAddress:
        """The address that the client connected to."""

    def isSecure(self) -> bool:
        """Whether the connection is TLS."""


class DisconnectListener(Protocol):
    """An object that `Request.watch_disconnect` registers."""

    def client_disconnected(self, reason: Failure) -> None:
        """The client disconnected before the response was finished."""

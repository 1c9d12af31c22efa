"""Requests of administrators to the daemon that has a SQLite database open."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from chatd.admin.errors import STATUSES, AdminError
from chatd.domain.administration import ANSWERS, Reply, Request
from chatd.runtime.unix_paths import short_path

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 60.0


class RemoteAdministration(LineOnlyReceiver):
    """A connection to a daemon's administrator's socket, for one request at a time."""

    delimiter = b"\n"
    MAX_LENGTH = 16 << 20

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._answer: Deferred[bytes] | None = None

    async def perform(self, request: Request) -> Reply:
        """Have a request performed; raises `AdminError`."""
        answered = self._answer = Deferred()
        self.sendLine(msgspec.json.encode(request))  # type: ignore[no-untyped-call]
        try:
            answer = ANSWERS.decode(await answered.addTimeout(ANSWER_SECONDS, self._clock))
        except TimeoutError:
            self._answer = None
            raise AdminError(
                f"the daemon has not answered for {ANSWER_SECONDS:g} s; whether this was done is"
                " unknown"
            ) from None
        except msgspec.DecodeError as error:
            raise AdminError(f"the daemon is of another version: {error}") from None
        if answer.reply is None:
            assert answer.refusal is not None
            raise refused(answer.refusal.code, answer.refusal.detail)
        return answer.reply

    def lineReceived(self, line: bytes) -> None:
        """Pass an answer on."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(line)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Fail the request that is under way."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(AdminError("the daemon has stopped; whether this was done is unknown"))

    def close(self) -> None:
        """Close the connection."""
        assert self.transport is not None
        self.transport.loseConnection()


async def connect(path: str, reactor: Any) -> RemoteAdministration | None:
    """Connect to the socket of a daemon; None if nobody listens there."""
    with short_path(path) as short:
        endpoint = UNIXClientEndpoint(reactor, short, CONNECT_SECONDS)
        try:
            connected: RemoteAdministration = await connectProtocol(
                endpoint, RemoteAdministration(reactor)
            )
        except ConnectError:
            return None
    return connected


def refused(code: str, detail: str) -> AdminError:
    """The error of a request that failed with a `DomainError`."""
    return AdminError(detail, STATUSES.get(code, 1))

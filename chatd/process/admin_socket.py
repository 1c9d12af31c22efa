"""The administrator's socket: a UNIX socket beside a SQLite database that a daemon has open.

Only one process may open the database, so `chatd user` and `chatd token` ask the daemon to do their
work. A request is a line of JSON and so is its answer, see `chatd.domain.administration`. Only the
owner of the database and root may connect: the socket has the mode 0600.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from chatd.domain.administration import REQUESTS, Administration, Answer, Refusal
from chatd.errors import DomainError
from chatd.runtime.unix_paths import short_path

MAX_REQUEST_BYTES: Final = 64 * 1024

_log = Logger()


class AdminSocket:
    """Listens at `path` between `start` and `stop`."""

    def __init__(self, path: str, administration: Administration, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor
        self._factory = Factory.forProtocol(lambda: AdminProtocol(administration))
        self._factory.noisy = False
        self._port: IListeningPort | None = None
        # Keeps the path of the port valid, which is removed when it is closed.
        self._bound = contextlib.ExitStack()

    def start(self) -> None:
        """Begin to listen; if that is not possible the daemon runs without it, and logs that.

        The caller has locked the database: a socket that exists is of a process that has ended.
        """
        # Nobody else may connect, not even before its mode is set.
        umask = os.umask(0o177)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            short = self._bound.enter_context(short_path(self._path))
            self._port = self._reactor.listenUNIX(short, self._factory, mode=0o600)
        except (OSError, CannotListenError) as error:
            self._bound.close()
            why = getattr(error, "socketError", error)
            _log.warn("there is no administrator's socket {path}: {why}", path=self._path, why=why)
        finally:
            os.umask(umask)

    async def stop(self) -> None:
        """Accept no more connections and remove the socket."""
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(FileNotFoundError):  # somebody else has removed it
                stopped = port.stopListening()
                if stopped is not None:
                    await stopped
        self._bound.close()


class AdminProtocol(LineOnlyReceiver):
    """One connection: answers each line; requests that come meanwhile are performed as well."""

    delimiter = b"\n"
    MAX_LENGTH = MAX_REQUEST_BYTES

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def lineReceived(self, line: bytes) -> None:
        """Perform a request; it goes on if the client leaves."""
        Deferred.fromCoroutine(self._perform(line)).addCallback(self._send)

    async def _perform(self, line: bytes) -> Answer:
        try:
            return Answer(reply=await self._administration.perform(REQUESTS.decode(line)))
        except msgspec.DecodeError as error:
            return Answer(refusal=Refusal("invalid_request", f"not understood: {error}"))
        except DomainError as error:
            return Answer(refusal=Refusal(error.code, error.detail))
        except Exception:
            _log.failure("a request of an administrator failed")
            return Answer(refusal=Refusal("internal_error", "it failed; see the daemon's log"))

    def _send(self, answer: Answer) -> None:
        if self.connected:
            self.sendLine(msgspec.json.encode(answer))  # type: ignore[no-untyped-call]

"""Argon2id off the reactor, bounded (OWASP Password Storage: 19 MiB, t=2, p=1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from twisted.internet.defer import Deferred

from chatd.errors import Overloaded
from chatd.runtime.thread_pool import Executor

T = TypeVar("T")

THREADS: Final = 2
QUEUE: Final = 64
"""Hashes under way or waiting; at some 25 ms each the last one waits for about a second."""


def owasp_hasher() -> PasswordHasher:
    """The hasher that the daemon uses."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Hash and verify passwords in `worker`; fails with `Overloaded` when too many wait."""

    def __init__(self, worker: Executor, hasher: PasswordHasher) -> None:
        self._worker = worker
        self._hasher = hasher
        self._waiting = 0
        # Unknown names are checked against this, so that they take as long as known ones.
        self._dummy = hasher.hash("a password that nobody has")

    async def hash(self, password: str) -> str:
        """The encoded hash of a password."""
        return await self._run(self._hash, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password fits; never for None, after the same work."""
        return await self._run(self._verify, password_hash, password)

    def stop(self) -> None:
        """End the threads after what is under way."""
        self._worker.stop()

    def _hash(self, password: str) -> str:
        return self._hasher.hash(_encoded(password))

    def _verify(self, password_hash: str | None, password: str) -> bool:
        try:
            encoded = self._dummy if password_hash is None else password_hash
            self._hasher.verify(encoded, _encoded(password))
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    def _run(self, call: Callable[..., T], *args: object) -> Deferred[T]:
        if self._waiting >= QUEUE:
            raise Overloaded("too many passwords are being checked", retry_after=2)
        self._waiting += 1
        return self._worker.run(call, *args).addBoth(self._done)

    def _done(self, result: T) -> T:
        self._waiting -= 1
        return result


def _encoded(password: str) -> bytes:
    # Any text that JSON can carry may be a password, a lone surrogate too.
    return password.encode("utf-8", "surrogatepass")

"""Argon2id password hashing in threads (OWASP Password Storage: 19 MiB, t=2, p=1)."""

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
MAX_PENDING: Final = 64
"""Hashes running or queued; at about 25 ms each, the last one waits about a second."""


def owasp_hasher() -> PasswordHasher:
    """The hasher used in production."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Hashes and verifies passwords in `executor`.

    Fails with `Overloaded` while `MAX_PENDING` calls are pending.
    """

    def __init__(self, executor: Executor, hasher: PasswordHasher) -> None:
        self._executor = executor
        self._hasher = hasher
        self._pending = 0
        # Verified for unknown usernames, so that they take as long as existing ones.
        self._dummy_hash = hasher.hash("a password that nobody has")

    @property
    def pending(self) -> int:
        """The number of passwords that are being hashed or wait for that."""
        return self._pending

    async def hash(self, password: str) -> str:
        """The encoded hash of a password."""
        return await self._run(self._hash, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password matches; with None, False after the same amount of work."""
        return await self._run(self._verify, password_hash, password)

    def stop(self) -> None:
        """Finish pending calls, then end the threads."""
        self._executor.stop()

    def _hash(self, password: str) -> str:
        return self._hasher.hash(encode(password))

    def _verify(self, password_hash: str | None, password: str) -> bool:
        try:
            encoded_hash = self._dummy_hash if password_hash is None else password_hash
            self._hasher.verify(encoded_hash, encode(password))
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    def _run(self, call: Callable[..., T], *args: object) -> Deferred[T]:
        if self._pending >= MAX_PENDING:
            raise Overloaded("too many passwords are being checked", retry_after=2)
        self._pending += 1
        return self._executor.run(call, *args).addBoth(self._finish)

    def _finish(self, result: T) -> T:
        self._pending -= 1
        return result


def encode(password: str) -> bytes:
    """What is hashed of a password."""
    # A password may be any JSON string, including one with lone surrogates.
    return password.encode("utf-8", "surrogatepass")

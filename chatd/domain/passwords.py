"""Argon2id password hashing in threads (OWASP Password Storage: 19 MiB, t=2, p=1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct
from twisted.internet.defer import Deferred

from chatd.domain.fair_queue import FairQueue
from chatd.runtime.networks import network
from chatd.runtime.thread_pool import Executor

T = TypeVar("T")

THREADS: Final = 2
"""At most, and no more than there are cores: on one core, two at once end no sooner than one after
the other, and leave the reactor a third of it instead of a half."""
MAX_PENDING: Final = 1000
"""Hashes waiting, at about 25 ms each."""
MAX_PENDING_OF_ADDRESS: Final = 64
"""Hashes waiting of one address, an IPv4 address or an IPv6 /48 network; addresses take turns."""


def threads_on(cores: int) -> int:
    """How many threads hash on so many cores."""
    return max(1, min(THREADS, cores))


def owasp_hasher() -> PasswordHasher:
    """The hasher used in production."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class _Waiting(Struct, frozen=True, eq=False):
    """A hash that has not begun."""

    owner: str
    call: Callable[..., Any]
    args: tuple[object, ...]
    result: Deferred[Any]


class Passwords:
    """Hashes and verifies passwords in `executor`, for clients' addresses in turn.

    The executor is given `max_running` at once, as many as it has threads. What is given to them
    does not take turns any more, so a thread rather waits for a turn of the reactor between two.
    Fails with `Overloaded` while too many wait, in all or of the address. What is cancelled before
    it has begun, because its client has disconnected, is not hashed.
    """

    def __init__(
        self, executor: Executor, hasher: PasswordHasher, max_running: int = THREADS
    ) -> None:
        self._executor = executor
        self._hasher = hasher
        self._running = 0
        self._max_running = max_running
        self._waiting: FairQueue[_Waiting] = FairQueue(
            lambda waiting: waiting.owner,
            max_entries=MAX_PENDING,
            max_per_owner=MAX_PENDING_OF_ADDRESS,
            bound="passwords",
            # Each a group of its own, since of these a new one has the next turn.
            group=lambda waiting: waiting.owner,
        )
        # Verified for unknown usernames, so that they take as long as existing ones.
        self._dummy_hash = hasher.hash("a password that nobody has")

    @property
    def pending(self) -> int:
        """The number of passwords that are being hashed or wait for that."""
        return self._running + len(self._waiting)

    def check_room(self, address: str) -> None:
        """Raise `Overloaded` if `hash` and `verify` would."""
        place = network(address)
        self._waiting.check(place, place)

    async def hash(self, password: str, address: str) -> str:
        """The encoded hash of a password."""
        return await self._run(address, self._hash, password)

    async def verify(self, password_hash: str | None, password: str, address: str) -> bool:
        """Whether the password matches; with None, False after the same amount of work."""
        return await self._run(address, self._verify, password_hash, password)

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

    def _run(self, address: str, call: Callable[..., T], *args: object) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        waiting = _Waiting(network(address), call, args, result)
        if self._running < self._max_running:
            self._begin(waiting)
        else:
            self._waiting.append(waiting)
        return result

    def _begin(self, waiting: _Waiting) -> None:
        self._running += 1
        self._executor.run(waiting.call, *waiting.args).addBoth(self._end, waiting.result)

    def _end(self, outcome: object, result: Deferred[Any]) -> None:
        self._running -= 1
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.result.called:
                self._begin(waiting)
                break
        result.callback(outcome)


def encode(password: str) -> bytes:
    """What is hashed of a password."""
    # A password may be any JSON string, including one with lone surrogates.
    return password.encode("utf-8", "surrogatepass")

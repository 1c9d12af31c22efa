"""What stands in for the world in unit tests: threads, time, hashing cost, and a composed system.

Nothing here fakes the product: the store is a real SQLite file, the bus the local one. Only
threads and time are replaced, so that a test decides when something happens.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from argon2 import PasswordHasher
from hypothesis.internal.conjecture import engine
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock, LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.bus.local import LocalBus
from chatd.compose import compose_domain
from chatd.config import load
from chatd.domain.rate_limits import Rates
from chatd.interfaces import IBus, ISubscriber
from chatd.metrics import Metrics
from chatd.model import Account, Message, ReadAfter, ReadPage, Session
from chatd.runtime.thread_pool import Executor
from chatd.store.migrations import Migration
from chatd.store.sqlite.store import SqliteStore

T = TypeVar("T")

# By itself hypothesis makes a failing example smaller for up to five minutes: longer than the time
# limit of a test, so that the run would end before the failure is told.
engine.MAX_SHRINKING_SECONDS = 45

EPOCH_2026: Final = 1_767_225_600_000_000
"""Microseconds: when the tests' clocks begin."""


class InlineExecutor:
    """A `chatd.runtime.thread_pool.Executor` that calls at once, in the calling thread."""

    def __init__(self) -> None:
        self.stopped = False

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        return execute(call, *args)

    def stop(self) -> None:
        self.stopped = True


class SteppedExecutor:
    """A `chatd.runtime.thread_pool.Executor` whose thread moves only when the test says so.

    `work` does what the thread would do, `deliver` what the reactor would with the result: in
    between, a commit has happened that nobody knows of yet.
    """

    def __init__(self) -> None:
        self._asked: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._done: deque[tuple[Deferred[Any], object]] = deque()
        self.stopped = False

    @property
    def asked(self) -> int:
        """Calls that are not done yet."""
        return len(self._asked)

    @property
    def done(self) -> int:
        """Results that the reactor has not been given yet."""
        return len(self._done)

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        self._asked.append((result, call, args))
        return result

    def work(self) -> None:
        """Do the call that was asked first."""
        result, call, args = self._asked.popleft()
        outcome: object
        try:
            outcome = call(*args)
        except Exception:
            outcome = Failure()
        self._done.append((result, outcome))

    def deliver(self) -> None:
        """Give the reactor the oldest result."""
        result, outcome = self._done.popleft()
        result.callback(outcome)

    def fail(self, problem: Exception) -> None:
        """Let the call that was asked first fail undone."""
        result, _, _ = self._asked.popleft()
        result.errback(problem)

    def step(self) -> bool:
        """Bring the oldest call to its end; False if there is none."""
        if not self._done:
            if not self._asked:
                return False
            self.work()
        self.deliver()
        return True

    def stop(self) -> None:
        while self._asked:
            self.work()
        self.stopped = True


class Now:
    """Microseconds since the Unix epoch, moving with a clock; `offset` sets it wrong."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset = 0

    def __call__(self) -> int:
        return EPOCH_2026 + round(self._clock.seconds() * 1_000_000) + self.offset


@implementer(IBus)
class LossyBus:
    """A local bus that the test may hold back, lose wake-ups of, or declare broken."""

    def __init__(self) -> None:
        self._bus = LocalBus()
        self.broken: str | None = None
        self.lose = False
        self.hold = False
        self.held: deque[frozenset[int]] = deque()

    def start(self, subscriber: ISubscriber) -> Deferred[None]:
        return self._bus.start(subscriber)

    def stop(self) -> Deferred[None]:
        return self._bus.stop()

    def problem(self) -> str | None:
        return self.broken or self._bus.problem()

    def publish(self, user_ids: Collection[int]) -> None:
        if self.lose:
            return
        if self.hold:
            self.held.append(frozenset(user_ids))
        else:
            self._bus.publish(user_ids)

    def publish_revoked(self, user_id: int, token: bytes | None) -> None:
        self._bus.publish_revoked(user_id, token)

    def release(self) -> None:
        """Let the wake-up through that was held back first."""
        self._bus.publish(self.held.popleft())


def cheap_hasher() -> PasswordHasher:
    """Argon2 at the least cost that the library takes."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def result_of(deferred: Deferred[T]) -> T:
    """What the Deferred has fired with; raises what it failed with, or says that it waits.

    A result may be asked for again, a failure is taken out.
    """
    results: list[T | Failure] = []

    def take(result: T | Failure) -> T | None:
        results.append(result)
        return None if isinstance(result, Failure) else result

    deferred.addBoth(take)
    assert results, f"not fired yet: {deferred}"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def fired(deferred: Deferred[Any]) -> bool:
    """Whether the Deferred has a result by now; type checkers believe `called` for ever."""
    return bool(deferred.called)


def cancel(deferred: Deferred[Any]) -> None:
    """What Klein does with a handler's Deferred when the client has gone."""
    deferred.addErrback(lambda _: None)
    deferred.cancel()


class ForgetfulStore(SqliteStore):
    """A store that has nothing at hand, as one that several processes write to."""

    def read_cached(self, query: ReadAfter | ReadPage, *, listening: bool = False) -> None:
        return None


class System:
    """Everything below HTTP, composed on a `task.Clock` and a real database file.

    With `read_cached` False every read goes to the database, through the reader's thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        worker: Callable[[], Executor] = InlineExecutor,
        rates: Rates | None = None,
        max_held: int = 10_000,
        registration_open: bool = True,
        min_password_length: int = 5,
        max_message_bytes: int = 16384,
        bus: LossyBus | None = None,
        known: list[Migration] | None = None,
        read_cached: bool = True,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.clock = Clock()
        self.now = Now(self.clock)
        self.metrics = Metrics()
        self.workers: dict[str, Any] = {}
        self.hashing: Any = worker()
        self.bus = bus or LossyBus()
        self.store = (SqliteStore if read_cached else ForgetfulStore)(
            str(folder / "chatd.db"),
            clock=self.clock,
            now=self.now,
            worker=lambda name: self.workers.setdefault(name, worker()),
            known=known,
        )
        settings = attrs.evolve(
            load({}, {})[0],
            max_polls=max_held,
            registration=registration_open,
            min_password_length=min_password_length,
            max_message_bytes=max_message_bytes,
        )
        self.components = compose_domain(
            settings,
            self.store,
            self.bus,
            self.metrics,
            clock=self.clock,
            now=self.now,
            hashing=self.hashing,
            hasher=cheap_hasher(),
            rates=rates,
        )
        self.notifier = self.components.notifier
        self.accounts = self.components.accounts
        self.chats = self.components.chats
        self.subscriber = self.components.subscriber
        self.sweep = self.components.sweep

    @property
    def writer(self) -> Any:
        """The worker that writes to the database."""
        return self.workers["writer"]

    @property
    def reader(self) -> Any:
        """The worker that reads from the database."""
        return self.workers["reader"]

    def open(self) -> None:
        """Start store and bus."""
        self.wait_for(self.store.open())
        # What survives the loss of power is not for these tests to see.
        self.store._write_db.execute("PRAGMA synchronous = OFF")
        self.wait_for(self.bus.start(self.subscriber))
        self.settle()

    def close(self) -> None:
        """End everything in the order of the service."""
        self.run(self.accounts.stop())
        self.wait_for(self.bus.stop())
        self.wait_for(self.store.close())

    def turn(self) -> None:
        """One turn of the reactor, and those that it asks for at once."""
        self.clock.advance(0)

    def start(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Begin a verb; with inline workers it ends in the same turn, unless it is held."""
        deferred = Deferred.fromCoroutine(work)
        self.turn()
        return deferred

    def run(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """The result of a verb that need not be held; workers are stepped to the end."""
        return self.wait_for(self.start(work))

    def wait_for(self, deferred: Deferred[T]) -> T:
        """Let everything happen that is asked for, then take the result."""
        self.settle()
        return result_of(deferred)

    def settle(self) -> None:
        """Let all threads finish all that they are asked; no time passes."""
        self.turn()
        stepped: Sequence[object] = [self.hashing, *self.workers.values()]
        while any(each.step() for each in stepped if isinstance(each, SteppedExecutor)):
            self.turn()

    def micro_step(self) -> bool:
        """Let the smallest thing happen that is due; False if nothing is."""
        if any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.turn()
            return True
        for worker in (self.hashing, *self.workers.values()):
            if worker.done:
                worker.deliver()
                return True
        for worker in (self.hashing, *self.workers.values()):
            if worker.asked:
                worker.work()
                return True
        return False

    def timers(self) -> list[IDelayedCall]:
        """The delayed calls of requests; those of regular housekeeping do not count."""
        return [
            call
            for call in self.clock.getDelayedCalls()
            if not isinstance(call.func, LoopingCall)  # type: ignore[attr-defined]
        ]

    def nobody_waits(self) -> bool:
        """Whether no poll, waiter or timer is left."""
        return not self.notifier._waiters and self.notifier.held == 0 and not self.timers()

    def account(self, name: str) -> Account:
        """A new account; its password is `password`."""
        return self.wait_for(self.store.add_account(name, f"{name}@example.org", _HASH))

    def session(self, name: str) -> Session:
        """The session of a new account, as one that came with Basic."""
        return Session(self.account(name).id)

    def send(self, sender: Session, received_by: int, text: str, key: str | None = None) -> Message:
        """Send a message to its end."""
        return self.run(self.chats.send(sender, received_by, text, key)).message


_HASH: Final = cheap_hasher().hash("password")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one of hypothesis' many examples: in memory, where the system has room there."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="chatd-test-", dir=memory if os.access(memory, os.W_OK) else None
    ) as folder:
        yield Path(folder)


@contextmanager
def composed(folder: Path, **options: Any) -> Iterator[System]:
    """An open `System`, closed afterwards."""
    system = System(folder, **options)
    system.open()
    try:
        yield system
    finally:
        system.close()


def cancelled_everywhere(
    folder: Path,
    begin: Callable[[System], Deferred[Any]],
    when_idle: Callable[[System], object] = lambda _: None,
    **options: Any,
) -> Iterator[System]:
    """One system for each moment between the beginning of a verb and its end.

    In each, what `begin` began was cancelled at that moment, then all else came to its end. When
    nothing is left to happen and the verb still waits, `when_idle` makes something happen, once.
    """
    for moment in itertools.count():
        with composed(folder / f"{moment}", worker=SteppedExecutor, **options) as system:
            verb = begin(system)
            idle = False
            for _ in range(moment):
                if system.micro_step() or verb.called:
                    continue
                assert not idle, "the verb does not come to its end"
                idle = True
                when_idle(system)
            if verb.called:
                assert moment > 0
                result_of(verb)
                return
            cancel(verb)
            system.settle()
            yield system

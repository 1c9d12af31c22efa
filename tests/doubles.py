"""Test doubles for threads, time and password hashing, and a system composed with them.

The product itself is not faked: the store is a real SQLite file, the bus the local one. Threads and
time are replaced, so that a test decides when something happens.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
from argon2 import PasswordHasher
from hypothesis.internal.conjecture import engine
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.bus.local import LocalBus
from chatd.compose.domain import compose_domain
from chatd.config import Settings, load
from chatd.domain.deliveries import Deliveries
from chatd.domain.rate_limits import Rates
from chatd.interfaces import IBus, ISubscriber
from chatd.metrics import Metrics
from chatd.model import Account, InboxLimits, Message, ReadAfter, ReadPage, Session
from chatd.runtime.thread_pool import Executor
from chatd.store.migrations import Migration, migrations
from chatd.store.sqlite.file import open_writer
from chatd.store.sqlite.store import SqliteStore

T = TypeVar("T")

# By default, hypothesis shrinks a failing example for up to five minutes. That is longer than the
# timeout of a test, so that the failure would not be reported.
engine.MAX_SHRINKING_SECONDS = 45

EPOCH_2026: Final = 1_767_225_600_000_000
"""Where the clocks of tests start, in microseconds."""


class InlineExecutor:
    """A `chatd.runtime.thread_pool.Executor` that runs calls at once, in the calling thread."""

    def __init__(self) -> None:
        self.stopped = False

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        return execute(call, *args)

    def stop(self) -> None:
        self.stopped = True


class SteppedExecutor:
    """A `chatd.runtime.thread_pool.Executor` whose thread runs only when the test says so.

    `work` does what the thread would do, `deliver` what the reactor would do with the result.
    Between the two, a transaction is committed, but the reactor has not been notified yet.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._done: deque[tuple[Deferred[Any], object]] = deque()
        self.stopped = False

    @property
    def pending(self) -> int:
        """The number of calls that have not run yet."""
        return len(self._pending)

    @property
    def done(self) -> int:
        """The number of results that have not been delivered yet."""
        return len(self._done)

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        self._pending.append((result, call, args))
        return result

    def work(self) -> None:
        """Run the oldest pending call."""
        result, call, args = self._pending.popleft()
        outcome: object
        try:
            outcome = call(*args)
        except Exception:
            outcome = Failure()
        self._done.append((result, outcome))

    def deliver(self) -> None:
        """Deliver the oldest result."""
        result, outcome = self._done.popleft()
        result.callback(outcome)

    def fail(self, problem: Exception) -> None:
        """Fail the oldest pending call without running it."""
        result, _, _ = self._pending.popleft()
        result.errback(problem)

    def step(self) -> bool:
        """Run and deliver the oldest call; returns False if there is none."""
        if not self._done:
            if not self._pending:
                return False
            self.work()
        self.deliver()
        return True

    def stop(self) -> None:
        while self._pending:
            self.work()
        self.stopped = True


class Now:
    """Microseconds since the Unix epoch, driven by a clock; `offset` makes it wrong."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset = 0

    def __call__(self) -> int:
        return EPOCH_2026 + round(self._clock.seconds() * 1_000_000) + self.offset


@implementer(IBus)
class ControlledBus:
    """A local bus that can lose or hold back wake-ups, or be broken."""

    interest = None

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

    def publish_changes(self, user_ids: Collection[int]) -> None:
        if not self.lose:
            self._bus.publish_changes(user_ids)

    def publish_changed(self, received_by: int, seq: int, sent_by: int) -> None:
        self._bus.publish_changed(received_by, seq, sent_by)

    def publish_revoked(self, user_id: int, token: bytes | None) -> None:
        self._bus.publish_revoked(user_id, token)

    def publish_sessions_changed(self, user_id: int) -> None:
        self._bus.publish_sessions_changed(user_id)

    def release(self) -> None:
        """Deliver the oldest wake-up that was held back."""
        self._bus.publish(self.held.popleft())


def cheap_hasher() -> PasswordHasher:
    """Argon2 with the lowest cost that the library accepts."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def logged(call: Callable[[], object]) -> list[str]:
    """The lines logged during a call."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        texts.append(formatEvent(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        call()
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    return texts


def result_of(deferred: Deferred[T]) -> T:
    """The result of a fired Deferred; raises its failure. Fails if it has not fired yet.

    A result can be read again, a failure is consumed.
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
    """Whether the Deferred has fired; type checkers assume that `called` never changes."""
    return bool(deferred.called)


def cancel(deferred: Deferred[Any]) -> None:
    """Cancel as Klein does with the Deferred of a handler when its client disconnects."""
    deferred.addErrback(lambda _: None)
    deferred.cancel()


class UncachedStore(SqliteStore):
    """A store whose inbox cache is always empty."""

    def read_cached(self, query: ReadAfter | ReadPage, *, listening: bool = False) -> None:
        return None


@functools.cache
def new_database() -> bytes:
    """A database without content. Copying it costs less than the migrations that made it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "chatd.db")
        lock, db, _ = open_writer(path, migrations("sqlite"))
        # Each copy makes its own.
        db.execute("UPDATE history SET epoch = NULL")
        db.close()
        lock.release()
        return Path(path).read_bytes()


@functools.cache
def _default_settings() -> Settings:
    return load({}, {})[0]


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
        directory: bool = False,
        show_email: bool = True,
        min_password_length: int = 5,
        max_message_bytes: int = 16384,
        edit_seconds: int = 0,
        known_only: bool = False,
        limits: InboxLimits | None = None,
        bus: ControlledBus | None = None,
        known: list[Migration] | None = None,
        read_cached: bool = True,
        free_bytes: Callable[[], int] | None = None,
        keep: int | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.clock = Clock()
        self.now = Now(self.clock)
        self.metrics = Metrics()
        self.workers: dict[str, Any] = {}
        self.hashing: Any = worker()
        self.bus = bus or ControlledBus()
        path = folder / "chatd.db"
        if known is None and not path.exists():
            path.write_bytes(new_database())
        self.store = (SqliteStore if read_cached else UncachedStore)(
            str(path),
            clock=self.clock,
            now=self.now,
            worker=lambda name: self.workers.setdefault(name, worker()),
            known=known,
            known_only=known_only,
            limits=limits,
            keep=keep,
        )
        settings = attrs.evolve(
            _default_settings(),
            max_polls=max_held,
            registration=registration_open,
            directory=directory,
            show_email=show_email,
            min_password_length=min_password_length,
            max_message_bytes=max_message_bytes,
            edit_seconds=edit_seconds,
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
            free_bytes=free_bytes,
        )
        self.notifier = self.components.notifier
        self.accounts = self.components.accounts
        self.account_changes = self.components.account_changes
        self.tokens = self.components.tokens
        self.chats = self.components.chats
        self.revisions = self.components.revisions
        self.blocks = self.components.blocks
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
        # These tests do not examine what survives a power loss.
        self.store._write_db.execute("PRAGMA synchronous = OFF")
        self.wait_for(self.bus.start(self.subscriber))
        self.settle()

    def close(self) -> None:
        """Stop everything in the order of the service."""
        self.run(self.components.deliveries.stop())
        self.run(self.accounts.stop())
        self.run(self.components.erasures.stop())
        self.wait_for(self.bus.stop())
        self.wait_for(self.store.close())

    def turn(self) -> None:
        """Run one turn of the reactor, and further ones scheduled for the same time."""
        self.clock.advance(0)

    def start(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Start a coroutine; with inline executors it ends in the same turn, unless it is held."""
        deferred = Deferred.fromCoroutine(work)
        self.turn()
        return deferred

    def run(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """Run a coroutine to its end; returns its result."""
        return self.wait_for(self.start(work))

    def wait_for(self, deferred: Deferred[T]) -> T:
        """Let all pending work happen, then return the result."""
        self.settle()
        return result_of(deferred)

    def settle(self) -> None:
        """Run all pending work of all threads; no time passes."""
        self.turn()
        stepped: Sequence[object] = [self.hashing, *self.workers.values()]
        while any(each.step() for each in stepped if isinstance(each, SteppedExecutor)):
            self.turn()

    def micro_step(self) -> bool:
        """Take the smallest possible step; returns False if nothing is pending."""
        if any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.turn()
            return True
        for worker in (self.hashing, *self.workers.values()):
            if worker.done:
                worker.deliver()
                return True
        for worker in (self.hashing, *self.workers.values()):
            if worker.pending:
                worker.work()
                return True
        return False

    def timers(self) -> list[IDelayedCall]:
        """The delayed calls, except those of periodic tasks and of delivered positions."""
        return [
            call
            for call in self.clock.getDelayedCalls()
            if not isinstance(call.func, LoopingCall)  # type: ignore[attr-defined]
            and not isinstance(getattr(call.func, "__self__", None), Deliveries)  # type: ignore[attr-defined]
        ]

    def is_idle(self) -> bool:
        """Whether no poll, waiter or timer is left."""
        return not self.notifier._waiters and self.notifier.held == 0 and not self.timers()

    def account(self, name: str) -> Account:
        """Create an account with the password "password"."""
        return self.wait_for(self.store.add_account(name, f"{name}@example.org", _HASH))

    def session(self, name: str) -> Session:
        """Create an account; returns a session of it, authenticated with Basic."""
        return Session(self.account(name).id)

    def send(self, sender: Session, received_by: int, text: str, key: str | None = None) -> Message:
        """Send a message; returns it once it is stored."""
        return self.run(self.chats.send(sender, received_by, text, key)).message


_HASH: Final = cheap_hasher().hash("password")


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for one example of hypothesis, in memory if possible."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="chatd-test-", dir=memory if os.access(memory, os.W_OK) else None
    ) as folder:
        yield Path(folder)


@contextmanager
def composed(folder: Path, **options: Any) -> Iterator[System]:
    """An open `System` that is closed afterwards."""
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
    """Cancel an operation in each of its steps, each time in a new system, and yield the system.

    `begin` starts the operation. It is cancelled after 0, 1, 2 ... steps, then everything else
    completes. When nothing is pending and the operation still waits, `when_idle` is called once.
    """
    for step in itertools.count():
        with composed(folder / f"{step}", worker=SteppedExecutor, **options) as system:
            operation = begin(system)
            idle = False
            for _ in range(step):
                if system.micro_step() or operation.called:
                    continue
                assert not idle, "the operation does not complete"
                idle = True
                when_idle(system)
            if operation.called:
                assert step > 0
                result_of(operation)
                return
            cancel(operation)
            system.settle()
            yield system

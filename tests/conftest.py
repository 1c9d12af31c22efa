"""What every test is held to: it leaves nothing behind.

A test fails that leaves a delayed call, a reader or writer, a child process or a thread, or that
lets an error be logged which it did not ask for through `logged_failures`. A Deferred whose failure
nobody handled is logged when it is collected, so garbage is collected after each test. Warnings,
`ResourceWarning` of an unclosed socket and "never awaited" among them, fail a test by
``filterwarnings = error``: also where Python can only report them to `sys.unraisablehook`.

What a fixture of a wider scope holds (a server for a module) is there before the test and not
counted. Leftovers are cleared away, so that the next test is not blamed for them.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from twisted.internet import defer, error, process, task
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

if TYPE_CHECKING:
    from tests.postgres_server import Databases, Server

pytest.register_assert_rewrite("tests.contracts")

# How long an example takes says more about the machine than about chatd.
settings.register_profile("chatd", deadline=None)
settings.load_profile("chatd")

# Turns of the reactor that a test's last steps (a connection being closed) may take.
SETTLING_TURNS = 5
# Seconds that a thread which was told to end may take.
THREAD_SECONDS = 1.0

# What Twisted logs by itself before the failure of a Deferred that nobody handled.
UNHANDLED = "Unhandled error in Deferred:"

_passed = pytest.StashKey[bool]()


@implementer(ILogObserver)
class LoggedFailures:
    """The errors that were logged and not yet asked for; a test that leaves one here fails.

    An error is an event with a failure, of level critical, or a legacy event with ``isError``.
    """

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Keep `event` if it is an error; threads may call this."""
        failure = event.get("log_failure")
        if failure is None and event.get("log_format") == UNHANDLED:
            return
        critical = event.get("log_level") is LogLevel.critical
        if critical or event.get("isError") or failure is not None:
            self._events.append(event)

    def flush(self, *kinds: type[BaseException]) -> list[Failure]:
        """Take out the failures of these kinds, or all of them, in the order they were logged."""
        gc.collect()
        taken: list[Failure] = []
        kept: list[LogEvent] = []
        for event in self._events:
            failure = event.get("log_failure")
            if isinstance(failure, Failure) and (not kinds or failure.check(*kinds)):
                taken.append(failure)
            else:
                kept.append(event)
        self._events[:] = kept
        return taken

    def flush_messages(self) -> list[str]:
        """Take out the errors logged without a failure; their texts."""
        texts = [formatEvent(event) for event in self._events if not event.get("log_failure")]
        self._events[:] = [event for event in self._events if event.get("log_failure")]
        return texts

    def forget(self) -> None:
        """Drop everything."""
        self._events.clear()

    def describe(self) -> list[str]:
        """One text an error, with its traceback where it has one."""
        return [
            f"logged: {formatEvent(event)}"
            + (f"\n{failure.getTraceback()}" if (failure := event.get("log_failure")) else "")
            for event in self._events
        ]


@dataclass(frozen=True)
class Held:
    """What the process holds at a moment: what a test adds to it, it must give back."""

    calls: frozenset[IDelayedCall]
    selectables: frozenset[Any]
    children: frozenset[int]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> "Held":
        """Read it off the reactor, where one is installed, and the interpreter."""
        reactor = _reactor()
        threads = {thread for thread in threading.enumerate() if not thread.daemon}
        if reactor is None:
            return cls(frozenset(), frozenset(), frozenset(), frozenset(threads))
        if reactor.threadpool is not None:
            threads -= set(reactor.threadpool.threads)
        selectables = {*reactor.getReaders(), *reactor.getWriters()} - reactor._internalReaders
        return cls(
            frozenset(reactor.getDelayedCalls()),
            frozenset(selectables),
            frozenset(process.reapProcessHandlers),
            frozenset(threads),
        )

    def since(self, before: "Held") -> "Held":
        """What is here and was not before."""
        return Held(
            self.calls - before.calls,
            self.selectables - before.selectables,
            self.children - before.children,
            self.threads - before.threads,
        )

    def describe(self) -> list[str]:
        """One text a leftover."""
        return [
            *(f"delayed call: {call}" for call in self.calls),
            *(f"reader or writer: {selectable!r}" for selectable in self.selectables),
            *(f"child process: {pid}" for pid in self.children),
            *(f"thread: {thread!r}" for thread in self.threads),
        ]

    def clear(self) -> None:
        """End all of it, but for threads, which nobody can end."""
        for call in self.calls:
            with contextlib.suppress(error.AlreadyCalled, error.AlreadyCancelled):
                call.cancel()
        reactor = _reactor()
        for selectable in self.selectables:
            reactor.removeReader(selectable)
            reactor.removeWriter(selectable)
            with contextlib.suppress(Exception):
                selectable.connectionLost(Failure(error.ConnectionAborted()))
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _reactor() -> Any:
    """The reactor if one is installed (with ``-p no:twisted`` there is none), else None."""
    return sys.modules.get("twisted.internet.reactor")


def _turn() -> None:
    """Let the reactor turn once, if it runs."""
    reactor = _reactor()
    if reactor is not None and reactor.running:
        import pytest_twisted

        waited: defer.Deferred[None] = task.deferLater(reactor, 0, lambda: None)
        pytest_twisted.blockon(waited)


def _leftovers(before: Held) -> Held:
    """What came since `before` and stays, when what is just ending has had the time to."""
    left = Held.now().since(before)
    for _ in range(SETTLING_TURNS):
        if not (left.calls or left.selectables or left.children):
            break
        _turn()
        left = Held.now().since(before)
    if left.threads:
        for thread in left.threads:
            thread.join(THREAD_SECONDS)
        left = Held.now().since(before)
    return left


def pytest_collection_finish() -> None:
    """Set aside all that imports made: a full collection after each test then costs little."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself passed."""
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    return report


@pytest.fixture(scope="session", autouse=True)
def _errors() -> Iterator[LoggedFailures]:
    """The session's observer; what is logged after the last test fails the session."""
    errors = LoggedFailures()
    globalLogPublisher.addObserver(errors)
    yield errors
    gc.unfreeze()
    gc.collect()
    globalLogPublisher.removeObserver(errors)
    if logged := errors.describe():
        pytest.fail("errors after the last test\n" + "\n".join(logged), pytrace=False)


@pytest.fixture
def logged_failures(_errors: LoggedFailures) -> LoggedFailures:
    """The errors logged so far; a test takes out those it expects with `LoggedFailures.flush`."""
    return _errors


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest, _errors: LoggedFailures) -> Iterator[None]:
    """Fail the test if it leaves something behind; see the module's docstring."""
    before = Held.now()
    yield
    left = _leftovers(before)
    if isinstance(request.instance, SynchronousTestCase):
        # Trial has judged what was logged while the test ran, and knows what was flushed.
        _errors.forget()
    gc.collect()
    findings = [*left.describe(), *_errors.describe()]
    left.clear()
    if findings:
        # What is in the way of the next test falls with the failures that hold it.
        _errors.forget()
        gc.collect()
        _errors.forget()
    # A test that failed leaves things because it stopped half-way: one report is enough.
    if findings and request.node.stash.get(_passed, True):
        pytest.fail("the test left behind\n" + "\n".join(findings), pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator["Databases"]:
    """Databases on a real PostgreSQL, the one that the environment names or one of the tests' own.

    Who stops or kills a server takes `own_server`.
    """
    from tests.postgres_server import DSN_VARIABLE, Databases, Server

    if given := os.environ.get(DSN_VARIABLE):
        databases = Databases(given)
        yield databases
        databases.drop_all()
        return
    server = Server()
    try:
        server.start()
        yield Databases(server.url())
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def postgres_template(postgres: "Databases") -> str:
    """The name of a database with chatd's tables, to be copied."""
    from chatd.store.migrations import migrations
    from tests.postgres_server import connected, rows

    name = postgres.create()
    with connected(postgres.url(name)) as db:
        for migration in migrations("postgres"):
            rows(db, migration.sql)
            rows(db, "UPDATE schema_version SET version = %s", migration.version)
    return name


@pytest.fixture
def postgres_database(postgres: "Databases", postgres_template: str) -> Iterator[str]:
    """The name of a database of the test's own with chatd's tables; dropped after the test."""
    name = postgres.create(postgres_template)
    yield name
    postgres.drop(name)


@pytest.fixture(scope="module")
def own_server() -> Iterator["Server"]:
    """A PostgreSQL of the module's own, which its tests may stop and kill."""
    from tests.postgres_server import Server

    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def own_database(own_server: "Server") -> Iterator[str]:
    """The name of an empty database of the test's own on `own_server`; dropped after the test."""
    from tests.postgres_server import Databases

    databases = Databases(own_server.url())
    name = databases.create()
    yield name
    databases.drop(name)

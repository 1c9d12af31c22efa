"""Fixtures for all tests, foremost the leak check.

A test fails if it leaves a delayed call, a reader or writer, a child process or a thread behind, or
if it logs an error that it does not take out of `logged_failures`. A Deferred logs an unhandled
failure when it is garbage-collected, so garbage is collected after each test. Warnings, such as
`ResourceWarning` for an unclosed socket, fail a test by ``filterwarnings = error``, even where
Python can only report them to `sys.unraisablehook`.

What fixtures of a wider scope hold exists before the test and does not count. Leftovers are
removed, so that the next test is not blamed for them.

A run in which tests went missing fails as well.
"""

import contextlib
import functools
import gc
import importlib.metadata
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
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

pytest_plugins = ["tests.workers"]
pytest.register_assert_rewrite("tests.contracts")

# Deadlines for examples would measure the machine rather than chatd.
settings.register_profile("default", deadline=None, max_examples=30)
settings.register_profile("deep", deadline=None, max_examples=100)
settings.load_profile("default")

# tmp_path is in memory where there is room: the tests open a few thousand SQLite databases.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
    free = os.statvfs(MEMORY)
    if free.f_bavail * free.f_frsize >= MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# pytest asks for the version of Twisted before each test, which parses a file of 50 KB.
importlib.metadata.version = functools.cache(importlib.metadata.version)

# Iterations of the reactor that the end of a test, such as closing a connection, may take.
SETTLING_TURNS = 5
# Seconds that a stopping thread may take.
THREAD_SECONDS = 1.0

SLOW = {"bench", "bus", "hostile", "integration", "operations", "soak", "test_packaging.py"}
"""Folders and files of tests that start processes, and wait for them."""

# Twisted logs this before the unhandled failure of a Deferred.
UNHANDLED = "Unhandled error in Deferred:"

_passed = pytest.StashKey[bool]()


@implementer(ILogObserver)
class LoggedFailures:
    """Log observer that collects errors; a test that leaves one here fails.

    An error is an event with a failure, one of level critical, or a legacy one with ``isError``.
    """

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Keep `event` if it is an error. Thread-safe."""
        failure = event.get("log_failure")
        if failure is None and event.get("log_format") == UNHANDLED:
            return
        critical = event.get("log_level") is LogLevel.critical
        if critical or event.get("isError") or failure is not None:
            self._events.append(event)

    def flush(self, *kinds: type[BaseException]) -> list[Failure]:
        """Remove and return the failures of these types, or all, in the order they were logged."""
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
        """Remove the errors that were logged without a failure; returns their texts."""
        texts = [formatEvent(event) for event in self._events if not event.get("log_failure")]
        self._events[:] = [event for event in self._events if event.get("log_failure")]
        return texts

    def forget(self) -> None:
        """Drop all errors."""
        self._events.clear()

    def describe(self) -> list[str]:
        """One text per error, with its traceback if it has one."""
        return [
            f"logged: {formatEvent(event)}"
            + (f"\n{failure.getTraceback()}" if (failure := event.get("log_failure")) else "")
            for event in self._events
        ]


@dataclass(frozen=True)
class Resources:
    """Snapshot of the resources in use, which a test must return to where it was."""

    calls: frozenset[IDelayedCall]
    selectables: frozenset[Any]
    children: frozenset[int]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> "Resources":
        """Take the snapshot of the interpreter and of the reactor, if one is installed."""
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

    def since(self, before: "Resources") -> "Resources":
        """The resources that are new."""
        return Resources(
            self.calls - before.calls,
            self.selectables - before.selectables,
            self.children - before.children,
            self.threads - before.threads,
        )

    def describe(self) -> list[str]:
        """One text per resource."""
        return [
            *(f"delayed call: {call}" for call in self.calls),
            *(f"reader or writer: {selectable!r}" for selectable in self.selectables),
            *(f"child process: {pid}" for pid in self.children),
            *(f"thread: {thread!r}" for thread in self.threads),
        ]

    def clear(self) -> None:
        """Release all of them except threads, which cannot be stopped."""
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
    """The installed reactor; None with ``-p no:twisted``."""
    return sys.modules.get("twisted.internet.reactor")


def _turn() -> None:
    """Run one iteration of the reactor, if it is running."""
    reactor = _reactor()
    if reactor is not None and reactor.running:
        import pytest_twisted

        waited: defer.Deferred[None] = task.deferLater(reactor, 0, lambda: None)
        pytest_twisted.blockon(waited)


def _leftovers(before: Resources) -> Resources:
    """What was left since `before`, after waiting for what is just ending."""
    left = Resources.now().since(before)
    for _ in range(SETTLING_TURNS):
        if not (left.calls or left.selectables or left.children):
            break
        _turn()
        left = Resources.now().since(before)
    if left.threads:
        for thread in left.threads:
            thread.join(THREAD_SECONDS)
        left = Resources.now().since(before)
    return left


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first, so that no process is left with them in the end."""
    items.sort(key=_is_slow, reverse=True)


def _is_slow(item: pytest.Item) -> bool:
    return not SLOW.isdisjoint(item.nodeid.partition("::")[0].split("/"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage meanwhile, as nearly everything that imports create stays.

    It would be a seventh of the time that it takes to collect the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Exempt everything that imports created from garbage collection, to make it cheap."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Start the process that forks daemons before others are forked, which use it, too."""
    if session.config.getoption("processes") > 1 and any(map(_is_slow, session.items)):
        from tests.fork_server import ForkServer

        ForkServer.shared()
    try:
        return (yield)
    finally:
        _stop_fork_server()


def pytest_configure(config: pytest.Config) -> None:
    """Count the tests, and prepare for coverage if it is measured."""
    config.pluginmanager.register(MissingTests())
    if config.pluginmanager.hasplugin("_cov"):
        _switch_greenlets_between_calls()


def _switch_greenlets_between_calls() -> None:
    """Have an asynchronous test go on when the reactor is in none of chatd's functions.

    Coverage could otherwise only be told to follow greenlets, which makes it half as fast again:
    the functions of two greenlets would return in another order than they were called.
    """
    import pytest_twisted

    blockon = pytest_twisted.blockon

    def wait(waited: defer.Deferred[Any]) -> object:
        ended: defer.Deferred[Any] = defer.Deferred()
        waited.addBoth(lambda result: _reactor().callLater(0, ended.callback, result))
        return blockon(ended)

    pytest_twisted.blockon = wait


class MissingTests:
    """Plugin that fails an otherwise successful run in which collected tests did not run."""

    def __init__(self) -> None:
        self._finished: set[str] = set()
        self._missing = 0

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Called for each test, also for those that ran in another process."""
        self._finished.add(nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Change the exit status."""
        if session.exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly:
            self._missing = session.testscollected - len(self._finished)
        if self._missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why the run failed."""
        if self._missing:
            terminalreporter.section("missing tests", red=True)
            terminalreporter.line(f"{self._missing} of the collected tests did not run")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record whether the test itself passed."""
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    return report


@pytest.fixture(scope="session", autouse=True)
def _errors() -> Iterator[LoggedFailures]:
    """The log observer of the session, which fails if an error is logged after the last test."""
    errors = LoggedFailures()
    globalLogPublisher.addObserver(errors)
    yield errors
    gc.unfreeze()
    gc.collect()
    globalLogPublisher.removeObserver(errors)
    if logged := errors.describe():
        pytest.fail("errors after the last test\n" + "\n".join(logged), pytrace=False)


def _stop_fork_server() -> None:
    if (module := sys.modules.get("tests.fork_server")) is not None:
        module.ForkServer.stop()


@pytest.fixture
def logged_failures(_errors: LoggedFailures) -> LoggedFailures:
    """Errors logged so far; a test removes those that it expects with `LoggedFailures.flush`."""
    return _errors


@pytest.fixture(autouse=True)
def _check_leaks(request: pytest.FixtureRequest, _errors: LoggedFailures) -> Iterator[None]:
    """Fail the test if it leaves something behind; see the docstring of the module."""
    before = Resources.now()
    yield
    left = _leftovers(before)
    if isinstance(request.instance, SynchronousTestCase):
        # Trial has its own check of logged errors.
        _errors.forget()
    gc.collect()
    # What is left, such as reports and caches, need not be looked at after each of the next tests.
    gc.freeze()
    findings = [*left.describe(), *_errors.describe()]
    left.clear()
    if findings:
        # Failures hold frames, whose garbage would otherwise be found by the next test.
        _errors.forget()
        gc.collect()
        _errors.forget()
    # A failed test leaves things behind because it stopped half-way: one report is enough.
    if findings and request.node.stash.get(_passed, True):
        pytest.fail("the test left behind\n" + "\n".join(findings), pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator["Databases"]:
    """Databases on a real PostgreSQL: the one that the environment names, or a temporary one.

    Tests that stop the server or terminate its processes use `own_server`.
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
        yield Databases(server.url(), server)
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def pooled(postgres: "Databases") -> Iterator[Callable[[str], str]]:
    """Makes the address of a database on `postgres` one whose connections are reused.

    What a new connection costs the server is most of a test of a store. With --deep, and on a
    server that was given, connections are not reused.
    """
    from psycopg2.extensions import make_dsn, parse_dsn

    from tests.examples import examples
    from tests.pgbouncer import PgBouncer

    if postgres.server is None or examples(0, deep=1):
        yield lambda url: url
        return
    pooler = PgBouncer(postgres.server, "session", size=60)
    way = parse_dsn(pooler.url("any"))
    try:
        pooler.start()
        yield lambda url: make_dsn(**{**way, **parse_dsn(url), "host": way["host"]})
    finally:
        pooler.destroy()


@pytest.fixture(scope="session")
def postgres_template(postgres: "Databases") -> str:
    """The name of a template database with chatd's tables."""
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
    """The name of a new database with chatd's tables; dropped after the test."""
    name = postgres.create(postgres_template)
    yield name
    postgres.drop(name)


@pytest.fixture(scope="session")
def shared_postgres_database(postgres: "Databases", postgres_template: str) -> str:
    """The name of a database with chatd's tables that tests use one after another."""
    return postgres.create(postgres_template)


@pytest.fixture
def emptied_postgres_database(postgres: "Databases", shared_postgres_database: str) -> str:
    """The same for tests that neither change tables nor end others' connections: it is cheaper."""
    postgres.empty(shared_postgres_database)
    return shared_postgres_database


@pytest.fixture(scope="module")
def own_server() -> Iterator["Server"]:
    """A PostgreSQL server for this module only, whose tests may stop or kill it."""
    from tests.postgres_server import Server

    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def own_database(own_server: "Server") -> Iterator[str]:
    """The name of a new, empty database on `own_server`; dropped after the test."""
    from tests.postgres_server import Databases

    databases = Databases(own_server.url())
    name = databases.create()
    yield name
    databases.drop(name)

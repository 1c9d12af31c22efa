"""Plugin of pytest that runs tests in several processes: the option ``--processes``.

The processes are forked when the tests have been imported and collected, which takes longer than a
process needs for its share of the tests; pytest-xdist does it in each process. They take the tests
of one module after another, then some of those that others have left, and report to the process
that has forked them, which prints the results. A process that dies is reported as the failure of
the test that it ran, and replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NoReturn

import pytest

STOP_SECONDS: Final = 20.0
"""What the fixtures of an interrupted process may take to end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="run the tests in so many processes; 1, the default, is this one",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Use several processes if told to."""
    if config.getoption("processes") > 1 and not config.option.collectonly:
        config.pluginmanager.register(Workers(config.getoption("processes")))
        if terminal := config.pluginmanager.getplugin("terminalreporter"):
            # Results of several files arrive in turn.
            terminal.showfspath = False


class Schedule:
    """Which process runs which of the tests 0, 1, ..., whose modules are `modules`.

    The first process takes modules from the end and the others from the beginning, so that what
    waits and what computes run at the same time if they are far from each other.
    """

    def __init__(self, modules: Iterable[object]) -> None:
        grouped: dict[object, deque[int]] = {}
        for number, module in enumerate(modules):
            grouped.setdefault(module, deque()).append(number)
        self._untouched = deque(grouped.values())
        self._taken: dict[int, deque[int]] = {}

    def next(self, process: int) -> int | None:
        """The next test of a process; None if there is none left."""
        mine = self._taken.setdefault(process, deque())
        if not mine and self._untouched:
            untouched = self._untouched
            mine = self._taken[process] = untouched.popleft() if process else untouched.pop()
        if not mine:
            most = max(self._taken.values(), key=len)
            for _ in range((len(most) + 1) // 2):
                mine.appendleft(most.pop())
        return mine.popleft() if mine else None

    def give_back(self, process: int, tests: Iterable[int]) -> None:
        """Tests that a process was given and has not begun."""
        self._taken[process].extendleft(tests)


class Worker:
    """A forked process, as the process that has forked it sees it."""

    def __init__(self, number: int, pid: int, connection: Connection) -> None:
        self.number = number
        self.pid = pid
        self.connection = connection
        self.tests: deque[int] = deque()
        """What it runs, and what it runs next: fixtures that both use are not set up again."""

    def give(self, test: int | None) -> None:
        """Tell it the next test; None: there is none."""
        if test is not None:
            self.tests.append(test)
        # A process that has died is noticed when its connection is read.
        with contextlib.suppress(OSError):
            self.connection.send(test)

    def stop(self) -> None:
        """Have it end its fixtures, and wait until it has ended."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
        ends = time.monotonic() + STOP_SECONDS
        while not os.waitpid(self.pid, os.WNOHANG)[0]:
            if time.monotonic() > ends:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)

    def status(self) -> int:
        """Wait for its exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Workers:
    """Plugin that runs the tests in forked processes."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._running: dict[Connection, Worker] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Fork the processes, and wait until they have run all tests."""
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            # pytest's own loop says what is wrong.
            return None
        schedule = Schedule(item.path for item in session.items)
        try:
            for number in range(min(self._processes, len(session.items))):
                self._start(session, schedule, number)
            # Only now, so that each gets one of a few tests.
            for worker in self._running.values():
                worker.give(schedule.next(worker.number))
            while self._running:
                for ready in wait(list(self._running)):
                    assert isinstance(ready, Connection)
                    self._receive(session, schedule, self._running[ready])
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
        finally:
            for worker in self._running.values():
                worker.stop()
        return True

    def _start(self, session: pytest.Session, schedule: Schedule, number: int) -> Worker:
        ours, theirs = Pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        pid = os.fork()
        if not pid:
            for connection in (ours, *self._running):
                connection.close()
            session.config.pluginmanager.unregister(self)
            _work(session, theirs)
        theirs.close()
        worker = self._running[ours] = Worker(number, pid, ours)
        worker.give(schedule.next(number))
        return worker

    def _receive(self, session: pytest.Session, schedule: Schedule, worker: Worker) -> None:
        """Pass on what a process reports of a test."""
        hook = session.config.hook
        try:
            reports, finished = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            del self._running[worker.connection]
            worker.connection.close()
            status = worker.status()
            if worker.tests:
                self._report_death(session.items[worker.tests.popleft()], status)
                schedule.give_back(worker.number, worker.tests)
                replacement = self._start(session, schedule, worker.number)
                if replacement.tests:
                    replacement.give(schedule.next(worker.number))
            elif status:
                # What it should have removed, such as a server of its own, is left behind.
                session.shouldfail = f"a process ended with {_end(status)} after its last test"
            return
        for data in reports:
            report = hook.pytest_report_from_serializable(config=session.config, data=data)
            hook.pytest_runtest_logreport(report=report)
        for nodeid, location in finished:
            hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        worker.tests.popleft()
        if worker.tests:
            worker.give(schedule.next(worker.number))

    def _report_death(self, item: pytest.Item, status: int) -> None:
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=f"{item.nodeid}: the process that ran it ended with {_end(status)}",
            when="call",
        )
        item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _end(status: int) -> str:
    """An exit status in words."""
    return f"signal {-status}" if status < 0 else f"status {status}"


class Reports:
    """Plugin of a forked process that collects what is to be reported of a test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._all = config.getoption("durations") is not None
        self._reports: list[dict[str, Any]] = []
        self._finished: list[tuple[str, tuple[str, int | None, str]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report, unless it only says that a fixture was set up or torn down."""
        if self._all or report.when == "call" or not report.passed:
            hook = self._config.hook
            data = hook.pytest_report_to_serializable(config=self._config, report=report)
            self._reports.append(data)

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Keep that the test has ended."""
        self._finished.append((nodeid, location))

    def take(self) -> tuple[Sequence[object], Sequence[object]]:
        """What has been collected since the last call."""
        taken = self._reports, self._finished
        self._reports, self._finished = [], []
        return taken


def _work(session: pytest.Session, connection: Connection) -> NoReturn:
    """Be a forked process: run the tests whose numbers are received, and exit."""
    status = 1
    try:
        plugins = session.config.pluginmanager
        plugins.unregister(name="terminalreporter")
        reports = Reports(session.config)
        plugins.register(reports)
        # Captured output would go to the file of the process that has forked this one.
        if capturing := plugins.getplugin("capturemanager"):
            capturing.stop_global_capturing()
            capturing.start_global_capturing()
            capturing.suspend_global_capture()
        if reactor := sys.modules.get("twisted.internet.reactor"):
            # So would what wakes up the reactor, which has not run yet.
            reactor.__init__()  # type: ignore[misc]
        _run_tests(session, connection, reports)
        status = 0
    except (KeyboardInterrupt, EOFError, ConnectionError):
        # The process that has forked this one was interrupted, or has ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(BaseException):
            session._setupstate.teardown_exact(None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _run_tests(session: pytest.Session, connection: Connection, reports: Reports) -> None:
    number = connection.recv()
    while number is not None:
        following = connection.recv()
        item = session.items[number]
        nextitem = None if following is None else session.items[following]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        connection.send(reports.take())
        if session.shouldfail or session.shouldstop:
            # All fixtures have ended, which no other test may use.
            return
        number = following

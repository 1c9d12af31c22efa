"""The leak check of conftest.py, and its check that all collected tests ran."""

import re
from pathlib import Path

import pytest

from tests.examples import examples
from tests.nested_pytest import outcomes, run

# The fixture must fail each test named test_leaves_... and no other one. Each is followed by a
# clean test, which must not be blamed for the leak.
PROBES = '''
import gc
import socket
import subprocess
import sys
import threading
import time
import warnings

import pytest
import pytest_twisted
from hypothesis import given, strategies
from twisted.internet import defer, protocol, reactor, task
from twisted.logger import Logger
from twisted.python import log as legacy_log
from twisted.trial.unittest import SynchronousTestCase

log = Logger()


class Pipe:
    """A socket that the reactor watches."""

    def __init__(self):
        self.ends = socket.socketpair()

    def fileno(self):
        return self.ends[0].fileno()

    def logPrefix(self):
        return "pipe"

    def doRead(self):
        pass

    doWrite = doRead

    def connectionLost(self, reason):
        for end in self.ends:
            end.close()


def test_leaves_a_delayed_call():
    reactor.callLater(60, lambda: None)


def test_leaves_a_reader():
    reactor.addReader(Pipe())


def test_leaves_a_writer():
    # Full at once: a writer that stays and is not called for ever.
    pipe = Pipe()
    pipe.ends[0].setblocking(False)
    try:
        while True:
            pipe.ends[0].send(b"x" * 65536)
    except BlockingIOError:
        pass
    reactor.addWriter(pipe)


def test_leaves_a_listening_port():
    reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")


def test_leaves_a_child_process():
    reactor.spawnProcess(
        protocol.ProcessProtocol(),
        sys.executable,
        [sys.executable, "-c", "import time; time.sleep(60)"],
        childFDs={},
    )


@pytest_twisted.ensureDeferred
async def test_leaves_a_delayed_call_of_a_coroutine():
    await task.deferLater(reactor, 0, lambda: None)
    reactor.callLater(60, lambda: None)


def test_leaves_an_unhandled_error():
    defer.fail(ValueError("nobody handles this"))


def test_leaves_an_unhandled_error_in_a_cycle():
    deferred = defer.fail(ValueError("nobody handles this"))
    deferred.itself = deferred


def test_leaves_a_logged_failure():
    try:
        1 / 0
    except ZeroDivisionError:
        log.failure("unexpected")


def test_leaves_a_critical_event():
    log.critical("the end is near")


def test_leaves_a_legacy_error():
    legacy_log.err(ValueError("old style"), "unexpected")


def test_leaves_a_legacy_message():
    legacy_log.msg("old style", isError=True)


def test_leaves_another_failure_than_the_expected(logged_failures):
    legacy_log.err(KeyError("other"))
    assert logged_failures.flush(ValueError) == []


def test_leaves_a_thread():
    threading.Thread(target=time.sleep, args=(3,)).start()


def test_leaves_an_unclosed_socket():
    socket.socket()


def test_leaves_an_unclosed_socket_in_a_cycle():
    holder = [socket.socket()]
    holder.append(holder)


def test_leaves_a_subprocess():
    subprocess.Popen([sys.executable, "-c", ""])


def test_leaves_a_coroutine():
    async def never():
        pass

    never()


def test_leaves_a_warning():
    warnings.warn("old", DeprecationWarning)


def test_leaves_an_error_in_a_thread():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()


class LeavesErrors(SynchronousTestCase):
    def test_leaves_an_error_to_trial(self):
        legacy_log.err(ValueError("trial sees this"))

    def test_leaves_an_unhandled_error_to_trial(self):
        deferred = defer.fail(ValueError("trial sees this"))
        deferred.itself = deferred


class FlushesErrors(SynchronousTestCase):
    def test_flushes_with_trial(self):
        legacy_log.err(ValueError("expected"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


def test_expects_failures(logged_failures):
    defer.fail(ValueError("expected"))
    deferred = defer.fail(ValueError("expected"))
    deferred.itself = deferred
    del deferred
    log.critical("expected")
    assert [f.type for f in logged_failures.flush(ValueError)] == [ValueError] * 2
    assert logged_failures.flush_messages() == ["expected"]


def test_logs_what_is_no_error():
    log.error("refused")
    log.warn("slow")


def test_ends_in_the_next_turn():
    reactor.callLater(0, lambda: None)


@pytest_twisted.ensureDeferred
async def test_closes_its_port_without_waiting():
    reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1").stopListening()


@pytest_twisted.ensureDeferred
async def test_uses_the_reactors_threads():
    from twisted.internet.threads import deferToThread

    assert await deferToThread(lambda: 1) == 1


def test_ends_its_thread_without_waiting():
    threading.Thread(target=time.sleep, args=(0.05,)).start()


@given(strategies.integers())
def test_is_a_property(n):
    assert n == n


@pytest.fixture(scope="module")
def port():
    listening = reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")
    yield listening
    pytest_twisted.blockon(defer.maybeDeferred(listening.stopListening))


def test_uses_what_a_module_holds(port):
    assert port.getHost().port


def test_fails_by_itself():
    reactor.callLater(60, lambda: None)
    pytest.fail("one report is enough")
'''

LATE = """
import pytest
from twisted.python import log


@pytest.fixture(scope="module", autouse=True)
def server():
    yield
    log.err(ValueError("while stopping"))


def test_passes():
    pass
"""

DROPS_TESTS = """
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    return True if item.name == "test_dropped" else None
"""

LEAKS = re.findall(r"def (test_leaves_\w+)", PROBES)
OTHERS = re.findall(r"def (test_(?!leaves_|fails_)\w+)", PROBES)


def outcomes_of_probes(folder: Path) -> dict[str, list[str]]:
    """The results of the probes: what went wrong, by name."""
    probes = [
        f"{block}\n\n\ndef test_is_clean_{number}():\n    pass"
        for number, block in enumerate(PROBES.split("\n\n\n"))
    ]
    run(folder, "--junit-xml=report.xml", test_probes="\n\n\n".join(probes))
    return outcomes(folder / "report.xml")


def test_what_a_test_leaves_behind_fails_it_alone(tmp_path: Path) -> None:
    found = outcomes_of_probes(tmp_path)
    assert [name for name in LEAKS if not found[name]] == []
    assert [name for name in OTHERS if found[name]] == []
    # The next test is not blamed.
    clean = [wrong for name, wrong in found.items() if name.startswith("test_is_clean")]
    assert len(clean) > len(LEAKS)
    assert not any(clean)
    # A failed test is reported once.
    assert found["test_fails_by_itself"] == ["failure"]


def test_an_error_after_the_last_test_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, test_late=LATE)
    assert done.returncode == 1
    assert "errors after the last test" in done.stdout


@pytest.mark.parametrize("arguments", [("--processes=2",), ()][: examples(1, deep=2)])
def test_a_test_that_was_dropped_fails_the_run(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "dropping.py").write_text(DROPS_TESTS)
    tests = "def test_dropped():\n    pass\n\n\ndef test_passes():\n    pass\n"
    done = run(tmp_path, "-p", "dropping", *arguments, test_some=tests)
    assert done.returncode == 1
    assert "1 of the collected tests did not run" in done.stdout


def test_a_path_that_does_not_exist_is_reported_by_several_processes(tmp_path: Path) -> None:
    done = run(tmp_path, "--processes=2", "tests/missing", "tests")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "file or directory not found: tests/missing" in done.stderr

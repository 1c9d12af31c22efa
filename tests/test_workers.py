"""Tests in several processes."""

import signal
import subprocess
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.daemon import wait_until
from tests.nested_pytest import command, outcomes, run
from tests.workers import Schedule

SECONDS = 30

PASSING = """
import pytest


@pytest.mark.parametrize("number", range(3))
def test_passes(number):
    pass
"""

FAILING = """
import os
import signal


def test_fails():
    print("said before")
    os.write(1, b"said directly")
    assert 1 == 2


def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)


def test_after_death():
    pass
"""

ENDING = """
import atexit
import os


def test_passes():
    atexit.register(os._exit, 3)
"""

WAITING = """
import pathlib
import time

import pytest


@pytest.fixture(scope="session", autouse=True)
def server():
    yield
    pathlib.Path("ended").touch()


def test_waits(server):
    pathlib.Path("waits").touch()
    time.sleep(60)
"""

FAILING_LATE = """
import pathlib
import time


def test_fails():
    while not pathlib.Path("waits").exists():
        time.sleep(0.02)
    assert 1 == 2
"""


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40),
)
def test_each_test_is_run_once_and_those_of_a_module_in_order(
    sizes: list[int], steps: list[tuple[int, bool]]
) -> None:
    modules = [number for number, size in enumerate(sizes) for _ in range(size)]
    schedule = Schedule(modules)
    begun: dict[int, list[int]] = {process: [] for process in range(3)}
    for process, gives_back in [*steps, *[(0, False)] * len(modules)]:
        test = schedule.next(process)
        if test is not None and gives_back:
            schedule.give_back(process, [test])
        elif test is not None:
            begun[process].append(test)
    assert sorted(chain(*begun.values())) == list(range(len(modules)))


def test_a_process_takes_whole_modules_then_half_of_what_another_has_left() -> None:
    schedule = Schedule("aaaabbbbc")
    assert [schedule.next(process) for process in (1, 2, 0)] == [0, 4, 8]
    assert [schedule.next(0) for _ in range(2)] == [2, 3]
    assert [schedule.next(process) for process in (1, 2, 2, 2)] == [1, 5, 6, 7]
    assert [schedule.next(process) for process in (0, 1, 2)] == [None] * 3


def test_failures_and_deaths_are_reported(tmp_path: Path) -> None:
    report = "--junit-xml=report.xml"
    done = run(tmp_path, "--processes=2", report, test_a=PASSING, test_b=PASSING, test_c=FAILING)
    assert done.returncode == 1
    assert "2 failed, 7 passed" in done.stdout
    assert "said before" in done.stdout
    assert "said directly" in done.stdout
    assert "test_dies: the process that ran it ended with signal 9" in done.stdout
    found = outcomes(tmp_path / "report.xml")
    assert {name for name, wrong in found.items() if wrong} == {"test_fails", "test_dies"}
    assert found["test_after_death"] == []


def test_a_process_that_ends_in_another_way_after_its_tests_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "--processes=2", test_a=ENDING, test_b=PASSING)
    assert done.returncode == 1
    assert "a process ended with status 3 after its last test" in done.stdout


def test_the_first_failure_ends_the_run_if_told_to(tmp_path: Path) -> None:
    done = run(tmp_path, "--processes=2", "-x", test_a=FAILING_LATE, test_b=WAITING)
    assert done.returncode == 1
    assert "stopping after 1 failures" in done.stdout
    assert (tmp_path / "ended").exists()


def test_an_interrupted_run_ends_its_fixtures(tmp_path: Path) -> None:
    with open(tmp_path / "output", "w") as output:
        tests = subprocess.Popen(
            command(tmp_path, "--processes=2", test_a=WAITING),
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until((tmp_path / "waits").exists, SECONDS)
        tests.send_signal(signal.SIGINT)
        assert tests.wait(SECONDS) == pytest.ExitCode.INTERRUPTED
    finally:
        tests.kill()
        tests.wait()
        print((tmp_path / "output").read_text())
    assert (tmp_path / "ended").exists()

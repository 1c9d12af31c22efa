"""The API description against a running daemon: its examples, and schemathesis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatd.api.docs import docs_page
from tests.daemon import Daemon, environment
from tests.examples import examples

# What schemathesis does, with how many examples of which operations. With --deep all operations,
# the phase that takes a minute, a request for each bound of each parameter (more examples beside it
# would not end within the timeout of a test), and sequences of calls, each with what the one before
# returned.
RUNS: list[tuple[str, int, tuple[str, ...]]] = [
    ("examples,coverage,fuzzing", 2, ()),
    ("stateful", 40, ()),
]
if not examples(0, deep=1):
    RUNS = [("examples,fuzzing", 2, ("get_chats", "send"))]
SCHEMATHESIS = """
[parameters]
"query.wait" = "0"
"header.Prefer" = "wait=0"

# A schema cannot express that 1.0 is not an integer here, or that a key was used already.
[[operations]]
include-operation-id = "send"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "422"]
checks.negative_data_rejection.expected-statuses = ["400", "401", "404", "413", "415", "422"]

[[operations]]
include-operation-id = "log_in"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "429"]

# Nor where the inbox ends.
[[operations]]
include-operation-id = "mark_read"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404"]

[[operations]]
include-operation-id = "edit_message"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403", "404", "409"]
checks.negative_data_rejection.expected-statuses = ["400", "401", "404", "413", "415"]

# Nor that nobody can block themselves.
[[operations]]
include-operation-id = "block"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404"]

# Nor which parameters can be combined, or whether a cursor belongs to this inbox.
[[operations]]
include-operation-id = "get_chats"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "delete_message"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403", "404", "409"]

[[operations]]
include-operation-id = "get_user"
checks.positive_data_acceptance.enabled = false

# Nor that one of two members is needed.
[[operations]]
include-operation-id = "change_user"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403"]
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path) as daemon:
        yield daemon


def run(*command: str, folder: Path) -> str:
    """Run a command that must succeed; returns its standard output."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_example(name: str, daemon: Daemon, folder: Path) -> Path:
    """Write an example to a file, with the URL of the daemon."""
    text = docs_page.example(name)
    assert text.count("http://127.0.0.1:8080") == 1
    path = folder / name
    path.write_text(text.replace("http://127.0.0.1:8080", daemon.url))
    return path


def test_the_curl_example_runs(daemon: Daemon, tmp_path: Path) -> None:
    output = run("bash", "-eu", str(write_example("session.sh", daemon, tmp_path)), folder=tmp_path)
    assert '"message":"hai"' in output
    assert '"timed_out":false' in output
    assert "event: message\nid: " in output


def test_the_python_example_runs(daemon: Daemon, tmp_path: Path) -> None:
    output = run(
        sys.executable,
        "-W",
        "error",
        str(write_example("session.py", daemon, tmp_path)),
        folder=tmp_path,
    )
    assert output.splitlines() == ["1 2 hai", "2 2 how are you?", "hai", "how are you?"]


@pytest.mark.parametrize(("phases", "count", "operations"), RUNS)
def test_schemathesis_finds_nothing(
    daemon: Daemon, tmp_path: Path, phases: str, count: int, operations: tuple[str, ...]
) -> None:
    daemon.register("tester")
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{daemon.url}/api/v1/openapi.json"),
            *("--header", f"Authorization: {daemon.log_in('tester')}"),
            # They would end the session that the other operations use.
            *("--exclude-operation-id", "delete_user", "--exclude-operation-id", "log_out"),
            *(f"--include-operation-id={name}" for name in operations),
            *("--phases", phases, "--max-examples", str(count), "--seed", "1", "--no-color"),
            *("--request-timeout", "10"),
            # How fast examples are made depends on the machine.
            "--suppress-health-check=too_slow",
        ],
        cwd=tmp_path,
        env=environment(PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

"""The `chatd` command, run by a script and interactively in a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.processes import free_port
from tests.daemon import TOKENS, USERS, Daemon, bearer, environment

SECONDS = 30.0


class Command(subprocess.Popen[str]):
    """A running command; leaving its context kills it."""

    def __exit__(self, *raised: Any) -> None:
        self.kill()
        super().__exit__(*raised)


class User:
    """A user with their own home directory."""

    def __init__(self, home: Path, daemon: Daemon) -> None:
        home.mkdir()
        self.home = home
        self.daemon = daemon
        self.environment = environment(
            HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), TERM="xterm"
        )

    def start(self, *arguments: str) -> Command:
        """Start a command with its output in pipes."""
        return Command(
            [sys.executable, "-m", "chatd.cli", *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
        )

    def run(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must succeed; returns its output."""
        with self.start(*arguments) as process:
            out, error = process.communicate(typed, timeout=SECONDS)
        assert process.returncode == 0, out + error
        return out

    def fail(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must fail with one line, which is returned."""
        with self.start(*arguments) as process:
            out, error = process.communicate(typed, timeout=SECONDS)
        assert process.returncode != 0, out
        assert "Traceback" not in error
        assert error.count("\n") == 1, error
        return error

    def register(self, name: str) -> None:
        email, url = f"{name}@example.org", self.daemon.url
        output = self.run(
            *("register", name, "--email", email, "--server", url, "--password-stdin"),
            typed="secret\n",
        )
        assert f"Logged in as {name}" in output


class Terminal:
    """A command running in a pseudo-terminal."""

    def __init__(self, user: User, *arguments: str) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:  # pragma: no cover - the child becomes another program
            os.chdir(user.home)
            os.execve(
                sys.executable,
                [sys.executable, "-m", "chatd.cli", *arguments],
                user.environment,
            )
        self.output = ""
        self.status: int | None = None

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def expect(self, pattern: str) -> None:
        """Wait until the output since the last match matches the pattern."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self.output)) is None:
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in {self.output!r}"
        self.output = self.output[found.end() :]

    def wait(self) -> int:
        """Wait until the command exits; returns its status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._descriptor)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            return False
        self.output += data.decode("utf-8", "replace")
        return bool(data)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, "--drain-seconds", "1", port=free_port()) as daemon:
        yield daemon


@pytest.fixture
def ann(tmp_path: Path, daemon: Daemon) -> User:
    user = User(tmp_path / "ann", daemon)
    user.register("ann")
    return user


@pytest.fixture
def bob(tmp_path: Path, daemon: Daemon) -> User:
    user = User(tmp_path / "bob", daemon)
    user.register("bob")
    return user


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_tail_prints_what_another_user_sends(ann: User, bob: User) -> None:
    ann.run("send", "BOB", "hello", "bob")
    ann.run("send", "bob", typed="from a pipe\nwith two lines\n")
    lines = bob.run("tail", "--since", "0", "--count", "2", "--json").splitlines()
    assert [json.loads(line)["message"] for line in lines] == [
        "hello bob",
        "from a pipe\nwith two lines",
    ]
    output = bob.run("tail", "--since", "0", "--count", "2")
    assert re.fullmatch(
        r"\d\d:\d\d ann: hello bob\n\d\d:\d\d ann: from a pipe\n {11}with two lines\n", output
    )
    sent = json.loads(ann.run("send", "--json", "bob", "x"))
    assert (sent["seq"], sent["message"]) == (3, "x")


def test_tail_survives_a_restart_and_resumes(
    daemon: Daemon, ann: User, bob: User, tmp_path: Path
) -> None:
    position = tmp_path / "position"
    with bob.start("tail", "--since", "0", "--resume", str(position), "--count", "2") as tail:
        assert tail.stdout is not None
        ann.run("send", "bob", "before")
        assert tail.stdout.readline().endswith("ann: before\n")
        daemon.stop()
        daemon.start()
        ann.run("send", "bob", "after")
        assert tail.stdout.readline().endswith("ann: after\n")
        assert tail.wait(SECONDS) == 0
    ann.run("send", "bob", "third")
    # The saved position has priority over --since.
    output = bob.run("tail", "--since", "0", "--resume", str(position), "--count", "1")
    assert output.endswith("ann: third\n")


def test_the_token_is_private_and_revoked_by_logout(daemon: Daemon, ann: User) -> None:
    file = ann.home / "config" / "chatd" / "session.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = json.loads(file.read_text())["token"]
    assert ann.run("whoami") == f"ann (user 1) at {daemon.url}\n"
    ann.run("logout")
    assert not file.exists()
    assert daemon.request("GET", USERS, None, bearer(token)).status == 401
    assert "not logged in; run chatd login" in ann.fail("whoami")
    ann.run("login", "ann", "--server", daemon.url, "--password-stdin", typed="secret\n")
    assert "ann" in ann.run("whoami")


def test_errors_are_reported_on_one_line(daemon: Daemon, ann: User, tmp_path: Path) -> None:
    assert "no such user: nobody" in ann.fail("send", "nobody", "x")
    assert "nothing but white space" in ann.fail("send", "ann", typed=" \n")
    login = ("login", "ann", "--server", daemon.url, "--password-stdin")
    assert "no such username and password" in ann.fail(*login, typed="wrong\n")
    assert "--password-stdin" in ann.fail("login", "ann", "--server", daemon.url)
    assert "chat needs a terminal" in ann.fail("chat", "ann")
    assert "is not a URL" in ann.fail("login", "x", "--server", "nowhere")
    (tmp_path / "position").write_text("a:b")
    assert "does not contain a position" in ann.fail("tail", "--resume", str(tmp_path / "position"))
    assert "Is a directory" in ann.fail("tail", "--resume", str(tmp_path))
    ann.run("send", "ann", "to myself")
    missing = str(tmp_path / "missing" / "position")
    assert "cannot write" in ann.fail("tail", "--since", "0", "--resume", missing)
    token = json.loads((ann.home / "config/chatd/session.json").read_text())["token"]
    assert daemon.request("DELETE", TOKENS, None, bearer(token)).status == 204
    assert "chatd login" in ann.fail("tail")
    daemon.stop()
    assert ann.fail("whoami") == f"chatd: cannot reach {daemon.url}: Connection refused\n"


def test_two_people_chat_in_terminals(
    daemon: Daemon, ann: User, bob: User, terminals: list[Terminal]
) -> None:
    ann.run("send", "bob", "an earlier message")
    here, there = Terminal(ann, "chat", "bob"), Terminal(bob, "chat", "ann")
    terminals += [here, there]
    here.expect("Chatting with bob")
    here.expect("ann: an earlier message")
    here.expect("ann> $")
    there.expect("bob> $")

    here.type("are you th")
    here.expect("are you th$")
    there.type("hello \x1b[31mann\r")
    # Incoming messages appear above the line being typed.
    here.expect(r"bob: hello ann\r\n")
    here.expect("ann> are you th$")
    here.type("ere?\r")
    there.expect(r"ann: are you there\?\r\n")

    daemon.stop()
    here.expect(r"\(offline, trying again\)")
    here.type("written while it was away\r")
    daemon.start()
    there.expect("ann: written while it was away\r\n")
    there.type("\x04")
    assert there.wait() == 0
    here.type("goodbye\r\x04")
    assert here.wait() == 0
    last = json.loads(bob.run("tail", "--since", "0", "--json", "--count", "4").splitlines()[-1])
    assert last["message"] == "goodbye"


def test_the_password_is_asked_for_in_a_terminal(
    daemon: Daemon, tmp_path: Path, terminals: list[Terminal]
) -> None:
    user = User(tmp_path / "cat", daemon)
    terminal = Terminal(user, "register", "cat", "--server", daemon.url)
    terminals.append(terminal)
    terminal.expect("Email: ")
    terminal.type("cat@example.org\n")
    terminal.expect("Password: ")
    terminal.type("miaow\n")
    terminal.expect("Repeat password: ")
    terminal.type("miaow\n")
    terminal.expect("Logged in as cat")
    assert terminal.wait() == 0
    assert "miaow" not in terminal.output


def test_an_interrupt_at_a_prompt_exits_quietly(
    daemon: Daemon, tmp_path: Path, terminals: list[Terminal]
) -> None:
    user = User(tmp_path / "cat", daemon)
    terminal = Terminal(user, "login", "cat", "--server", daemon.url)
    terminals.append(terminal)
    terminal.expect("Password: ")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.output


def test_the_end_of_input_at_a_prompt_is_reported(
    daemon: Daemon, tmp_path: Path, terminals: list[Terminal]
) -> None:
    user = User(tmp_path / "cat", daemon)
    terminal = Terminal(user, "login", "cat", "--server", daemon.url)
    terminals.append(terminal)
    terminal.expect("Password: ")
    terminal.type("\x04")
    assert terminal.wait() == 1
    assert "chatd: no input" in terminal.output
    assert "Traceback" not in terminal.output


def test_send_in_a_terminal_says_what_it_waits_for(ann: User, terminals: list[Terminal]) -> None:
    terminal = Terminal(ann, "send", "ann")
    terminals.append(terminal)
    terminal.expect("Type the message; Ctrl-D on a new line sends it.\r\n")
    terminal.type("typed\n\x04")
    assert terminal.wait() == 0
    assert "ann: typed" in ann.run("tail", "--since", "0", "--count", "1")


def test_an_interrupt_exits_with_status_130(ann: User) -> None:
    with ann.start("tail", "--since", "0") as tail:
        ann.run("send", "ann", "to myself")
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert "to myself" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(SECONDS) == 130
        assert "Traceback" not in tail.stderr.read()


def test_a_closed_pipe_ends_tail_quietly(ann: User) -> None:
    tail = ann.start("tail", "--since", "0")
    assert tail.stdout is not None
    assert tail.stderr is not None
    assert tail.stdin is not None
    ann.run("send", "ann", "one")
    tail.stdout.readline()
    tail.stdout.close()
    ann.run("send", "ann", "two")
    assert tail.wait(SECONDS) == 0
    assert tail.stderr.read() == ""
    tail.stderr.close()
    tail.stdin.close()


def test_the_demo_runs_without_preparation(tmp_path: Path, daemon: Daemon) -> None:
    user = User(tmp_path / "new", daemon)
    output = user.run("demo", "--once")
    folder = re.search(r"its data in (\S+)\.\n", output)
    assert folder is not None
    assert re.findall(r"\d\d:\d\d (ann|bob): ", output) == ["ann", "bob", "ann", "bob"]
    assert not Path(folder[1]).exists()


def test_the_demo_replies_until_interrupted(tmp_path: Path, daemon: Daemon) -> None:
    user = User(tmp_path / "new", daemon)
    with user.start("demo") as demo:
        assert demo.stdout is not None
        invitation = next(line for line in demo.stdout if line.startswith("Open "))
        url, password = re.findall(r"Open (\S+), .* password (\S+),", invitation)[0]
        user.run("login", "ann", "--server", url, "--password-stdin", typed=f"{password}\n")
        user.run("send", "bob", "three words more")
        # Two messages of the conversation came before it.
        output = user.run("tail", "--since", "0", "--count", "3")
        assert "I read your 3 words" in output
        demo.send_signal(signal.SIGINT)
        assert demo.wait(SECONDS) == 130
    assert user.fail("whoami")


def test_serve_runs_the_daemon(tmp_path: Path, daemon: Daemon) -> None:
    user = User(tmp_path / "new", daemon)
    with user.start("serve", "--listen", "tcp:0:interface=127.0.0.1") as serving:
        assert serving.stdout is not None
        for line in serving.stdout:
            if "is listening on" in line:
                break
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(SECONDS) in (0, -signal.SIGTERM)
    assert (user.home / "chatd.db").exists()
    assert user.run("serve", "--help").startswith("Usage: chatd serve [options]\n")
    assert user.run("serve", "--version") == user.run("--version")
    usage = "usage: chatd serve [options]\n"
    wrong = user.fail("serve", "--nonsense")
    assert wrong == f"chatd: option --nonsense not recognized; {usage}"
    assert user.fail("serve", "stray") == f"chatd: unexpected argument 'stray'; {usage}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_prints_a_script(tmp_path: Path, daemon: Daemon, shell: str) -> None:
    user = User(tmp_path / "new", daemon)
    assert "register" in user.run("completion", shell)

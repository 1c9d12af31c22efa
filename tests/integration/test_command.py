"""The `chatd` command, run by a script and interactively in a pseudo-terminal."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import signal
import socket
import stat
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from bench.processes import free_port
from chatd.cli.session import SavedLogin, SessionFile
from tests.daemon import CHATS, TOKENS, USERS, Daemon, basic, bearer, environment, wait_until
from tests.fork_server import ForkedProcess, completed

SECONDS = 30.0


class Command(ForkedProcess):
    """A running command with its output in pipes; leaving its context kills it."""

    def __init__(self, arguments: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        out, stdout = os.pipe()
        error, stderr = os.pipe()
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(error)
        try:
            super().__init__(
                ["-m", "chatd.cli", *arguments], cwd=folder, env=env, stdout=stdout, stderr=stderr
            )
        finally:
            os.close(stdout)
            os.close(stderr)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()


class User:
    """A user with their own home directory."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.saved_login = SessionFile(home / "config" / "chatd" / "session.json")
        self.environment = environment(
            HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), TERM="xterm"
        )

    def start(self, *arguments: str) -> Command:
        """Start a command."""
        return Command(arguments, self.home, self.environment)

    def run(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must succeed; returns its output."""
        status, out, error = self._run(arguments, typed)
        assert status == 0, out + error
        return out

    def fail(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must fail with one line, which is returned."""
        status, out, error = self._run(arguments, typed)
        assert status != 0, out
        assert "Traceback" not in error
        assert error.count("\n") == 1, error
        return error

    def _run(self, arguments: Sequence[str], typed: str) -> tuple[int, str, str]:
        """The status, output and errors of a command."""
        command = ["-m", "chatd.cli", *arguments]
        done = completed(command, cwd=self.home, env=self.environment, typed=typed)
        return done.returncode, done.stdout, done.stderr


class LoggedIn(User):
    """A user with an account, whose login is saved as the command saves it."""

    def __init__(self, home: Path, daemon: Daemon, name: str) -> None:
        super().__init__(home)
        self.name = name
        self.user_id = daemon.register(name)
        self.saved_login.save(SavedLogin(daemon.url, name, self.user_id, daemon.token(name)))
        self._daemon = daemon

    def post(self, recipient: LoggedIn, text: str) -> None:
        """Send a message without the command."""
        body = {"user_id": recipient.user_id, "message": text}
        assert self._daemon.request("POST", CHATS, body, basic(self.name)).status == 201


_COLOURS_AND_MODES = re.compile(r"\x1b\[(?:[0-9;]*m|\?[0-9]+[hl])")


class Terminal:
    """A command running in a pseudo-terminal."""

    def __init__(self, user: User, *arguments: str) -> None:
        self._descriptor, theirs = os.openpty()
        try:
            self._process = ForkedProcess(
                ["-m", "chatd.cli", *arguments],
                cwd=user.home,
                env=user.environment,
                stdin=theirs,
                stdout=theirs,
                terminal=True,
            )
        finally:
            os.close(theirs)
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal, which sends SIGWINCH to the command."""
        termios.tcsetwinsize(self._descriptor, (rows, columns))

    def expect(self, pattern: str) -> None:
        """Wait until the output since the last match matches; colours and modes are ignored."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, _COLOURS_AND_MODES.sub("", self.output))) is None:
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in {self.output!r}"
        self.output = found.string[found.end() :]

    def wait(self) -> int:
        """Wait until the command exits; returns its status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        assert time.monotonic() < deadline, f"it runs on after {self.output!r}"
        return self._process.wait(SECONDS)

    def is_waiting(self) -> bool:
        """Whether the command is blocked in a system call."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
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


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    with Daemon(folder, "--drain-seconds", "1", port=free_port()) as daemon:
        yield daemon


@contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Stop the daemon; it is started again at the end of the context."""
    daemon.stop()
    try:
        yield
    finally:
        daemon.start()


_numbers = itertools.count(1)


@pytest.fixture
def ann(tmp_path: Path, daemon: Daemon) -> LoggedIn:
    return LoggedIn(tmp_path / "ann", daemon, f"ann{next(_numbers)}")


@pytest.fixture
def bob(tmp_path: Path, daemon: Daemon) -> LoggedIn:
    return LoggedIn(tmp_path / "bob", daemon, f"bob{next(_numbers)}")


@pytest.fixture
def cat(tmp_path: Path) -> User:
    """Somebody without an account."""
    return User(tmp_path / "cat")


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_tail_prints_what_another_user_sends(ann: LoggedIn, bob: LoggedIn) -> None:
    ann.run("send", bob.name.upper(), "hello", "bob")
    ann.run("send", bob.name, typed="from a pipe\nwith two lines\n")
    tail = ("tail", "--since", "0", "--count", "2")
    for transport in ("poll", "stream"):
        lines = bob.run(*tail, "--transport", transport, "--json").splitlines()
        assert [json.loads(line)["message"] for line in lines] == [
            "hello bob",
            "from a pipe\nwith two lines",
        ]
    output = bob.run(*tail)
    indent = " " * len(f"00:00 {ann.name}: ")
    assert re.fullmatch(
        rf"\d\d:\d\d {ann.name}: hello bob\n"
        rf"\d\d:\d\d {ann.name}: from a pipe\n{indent}with two lines\n",
        output,
    )
    sent = json.loads(ann.run("send", "--json", bob.name, "x"))
    assert (sent["seq"], sent["message"]) == (3, "x")


def test_tail_prints_changes(ann: LoggedIn, bob: LoggedIn, tmp_path: Path) -> None:
    ann.post(bob, "hello")
    position = tmp_path / "position"
    options = ("tail", "--changes", "--count", "1")
    for transport in ("poll", "stream"):
        more = ("--since", "0", "--transport", transport)
        [line] = ann.run(*options, *more, "--json").splitlines()
        change = json.loads(line)
        assert (change["type"], change["message"]["message"]) == ("sent", "hello")
    output = ann.run(*options, "--since", "0", "--resume", str(position))
    assert re.fullmatch(rf"\d\d:\d\d {ann.name} to {bob.name}: hello\n", output)
    bob.run("tail", "--since", "0", "--count", "1")
    with ann.start(*options, "--resume", str(position)) as tail:
        ann.post(bob, "again")
        assert tail.stdout.readline().endswith(": again\n")
        assert tail.wait(SECONDS) == 0


def test_conversations_are_listed(ann: LoggedIn, bob: LoggedIn, cat: User) -> None:
    assert "No conversations yet" in ann.run("conversations")
    assert ann.run("conversations", "--json") == ""
    bob.post(ann, "to ann")
    head, line = ann.run("conversations").splitlines()
    assert head.split() == ["USER", "UNREAD", "LAST", "MESSAGE"]
    assert re.fullmatch(rf"{bob.name} +1 +\d\d:\d\d +to ann", line)
    ann.post(ann, "a note")
    parts = [json.loads(line) for line in ann.run("conversations", "--json").splitlines()]
    assert [each["username"] for each in parts] == [ann.name, bob.name]
    assert (parts[1]["unread"], parts[1]["last_message"]["message"]) == (1, "to ann")
    assert len(ann.run("conversations", "--json", "--limit", "1").splitlines()) == 1
    assert "chatd login" in cat.fail("conversations")


def test_tail_survives_a_restart_and_resumes(
    daemon: Daemon, ann: LoggedIn, bob: LoggedIn, tmp_path: Path
) -> None:
    position = tmp_path / "position"
    options = ("--since", "0", "--resume", str(position))
    with bob.start("tail", *options, "--count", "2") as tail:
        ann.post(bob, "before")
        assert tail.stdout.readline().endswith(f"{ann.name}: before\n")
        with stopped(daemon):
            pass
        ann.post(bob, "after")
        assert tail.stdout.readline().endswith(f"{ann.name}: after\n")
        assert tail.wait(SECONDS) == 0
    ann.post(bob, "third")
    # The saved position has priority over --since.
    output = bob.run("tail", *options, "--count", "1")
    assert output.endswith(f"{ann.name}: third\n")


def test_the_token_is_private_and_revoked_by_logout(daemon: Daemon, cat: User) -> None:
    server = ("--server", daemon.url, "--password-stdin")
    output = cat.run("register", "cat", "--email", "cat@example.org", *server, typed="secret\n")
    assert "Logged in as cat" in output
    file = cat.saved_login.path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    login = json.loads(file.read_text())
    assert cat.run("whoami") == f"cat (user {login['user_id']}) at {daemon.url}\n"
    cat.run("logout")
    assert not file.exists()
    assert daemon.request("GET", USERS, None, bearer(login["token"])).status == 401
    assert "not logged in; run chatd login" in cat.fail("whoami")
    cat.run("login", "cat", *server, typed="secret\n")
    assert "cat" in cat.run("whoami")


def test_errors_are_reported_on_one_line(daemon: Daemon, ann: LoggedIn, tmp_path: Path) -> None:
    assert "no such user: nobody" in ann.fail("send", "nobody", "x")
    assert "nothing but white space" in ann.fail("send", ann.name, typed=" \n")
    login = ("login", ann.name, "--server", daemon.url, "--password-stdin")
    assert "no such username and password" in ann.fail(*login, typed="wrong\n")
    assert "--password-stdin" in ann.fail("login", ann.name, "--server", daemon.url)
    assert "chat needs a terminal" in ann.fail("chat", ann.name)
    assert "is not a URL" in ann.fail("login", "x", "--server", "nowhere")
    (tmp_path / "position").write_text("a:b")
    assert "does not contain a position" in ann.fail("tail", "--resume", str(tmp_path / "position"))
    assert "Is a directory" in ann.fail("tail", "--resume", str(tmp_path))
    ann.post(ann, "to myself")
    missing = str(tmp_path / "missing" / "position")
    assert "cannot write" in ann.fail("tail", "--since", "0", "--resume", missing)
    saved = ann.saved_login.load()
    assert saved is not None
    assert daemon.request("DELETE", TOKENS, None, bearer(saved.token)).status == 204
    assert "chatd login" in ann.fail("tail")
    nowhere = f"http://127.0.0.1:{free_port()}"
    ann.saved_login.save(structs.replace(saved, server=nowhere))
    assert ann.fail("whoami") == f"chatd: cannot reach {nowhere}: Connection refused\n"


def test_two_people_chat_in_terminals(
    daemon: Daemon, ann: LoggedIn, bob: LoggedIn, terminals: list[Terminal]
) -> None:
    ann.post(bob, "an earlier message")
    here, there = Terminal(ann, "chat", bob.name), Terminal(bob, "chat", ann.name)
    terminals += [here, there]
    here.expect(f"Chatting with {bob.name}")
    here.expect(f"{ann.name}: an earlier message")
    here.expect(rf"{ann.name}( \(read\))?> $")
    there.expect(f"{bob.name}> $")

    here.type("are you th")
    here.expect("are you th$")
    there.type("hello \x1b[31mann\r")
    # Incoming messages appear above the line being typed.
    here.expect(rf"{bob.name}: hello ann\r\n")
    here.expect(rf"{ann.name} \(read\)> are you th$")
    here.type("ere?\r")
    there.expect(rf"{ann.name}: are you there\?\r\n")

    with stopped(daemon):
        here.expect(r"\(offline, trying again\)")
        here.type("written while it was away\r")
    there.expect(f"{ann.name}: written while it was away\r\n")
    there.type("\x04")
    assert there.wait() == 0
    here.type("goodbye\r\x04")
    assert here.wait() == 0
    last = json.loads(bob.run("tail", "--since", "0", "--json", "--count", "4").splitlines()[-1])
    assert last["message"] == "goodbye"


def test_a_chat_in_a_terminal_that_is_resized_and_left_with_ctrl_c(
    ann: LoggedIn, bob: LoggedIn, terminals: list[Terminal]
) -> None:
    terminal = Terminal(ann, "chat", bob.name)
    terminals.append(terminal)
    terminal.resize(80, 24)
    terminal.expect(f"{ann.name}> $")
    terminal.type("/help\r")
    terminal.expect("/quit +leave")
    ann.post(ann, "to myself")
    terminal.expect(rf"\({ann.name}: to myself\)")
    # A terminal marks pastes only if it was asked to.
    terminal.type("\x1b[200~one\rtwo\x1b[201~")
    terminal.expect(f"{ann.name}> one\r\n +two$")
    terminal.type("\r")
    terminal.expect(f"{ann.name}: one\r\n +two\r\n")
    terminal.type("x" * 50)
    terminal.expect("x{50}$")
    terminal.resize(40, 12)
    terminal.expect(r"x{25,35}\r\n +x{15,25}$")
    terminal.type("\x03")
    terminal.expect(f"{ann.name}> $")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert terminal.output.endswith("\x1b[J\x1b[?2004l")


def test_tail_in_a_terminal_has_colours_and_days(ann: LoggedIn, terminals: list[Terminal]) -> None:
    ann.post(ann, "to myself")
    terminal = Terminal(ann, "tail", "--since", "0", "--count", "1")
    terminals.append(terminal)
    assert terminal.wait() == 0
    day, line = terminal.output.splitlines()
    assert re.fullmatch(r"\x1b\[2m— \w+day, \d+ \w+ \d{4} —\x1b\[0m", day)
    assert line.endswith(f" \x1b[1m{ann.name}\x1b[0m: to myself")


def test_the_password_is_asked_for_in_a_terminal(
    daemon: Daemon, cat: User, terminals: list[Terminal]
) -> None:
    terminal = Terminal(cat, "register", "dora", "--server", daemon.url)
    terminals.append(terminal)
    terminal.expect("Email: ")
    terminal.type("dora@example.org\n")
    terminal.expect("Password: ")
    terminal.type("miaow\n")
    terminal.expect("Repeat password: ")
    terminal.type("miaow\n")
    terminal.expect("Logged in as dora")
    assert terminal.wait() == 0
    assert "miaow" not in terminal.output


def test_sessions_are_listed_and_ended_and_the_password_is_changed(
    daemon: Daemon, cat: User, terminals: list[Terminal]
) -> None:
    server = ("--server", daemon.url, "--password-stdin")
    cat.run("register", "eve", "--email", "eve@example.org", *server, typed="secret\n")
    label = f"chatd on {socket.gethostname()}"[:64]
    first = cat.saved_login.load()
    assert first is not None
    cat.run("login", "eve", *server, typed="secret\n")
    header, this, other = cat.run("sessions").splitlines()
    assert header.split() == ["ID", "LABEL", "CREATED", "LAST", "USED"]
    assert label in this
    assert label in other
    assert this.endswith("  this one")
    number = other.split()[0]
    assert cat.run("sessions", "--revoke", number) == f"Session {number} has ended.\n"
    assert daemon.request("GET", USERS, None, bearer(first.token)).status == 401
    assert f"no session {number}" in cat.fail("sessions", "--revoke", number)

    daemon.request("POST", TOKENS, {"username": "eve", "password": "secret"})
    assert len(cat.run("sessions").splitlines()) == 3
    assert "no terminal" in cat.fail("passwd")
    terminal = Terminal(cat, "passwd")
    terminals.append(terminal)
    for prompt, password in [
        ("Current password: ", "secret"),
        ("New password: ", "miaow"),
        ("Repeat new password: ", "miaow"),
    ]:
        terminal.expect(prompt)
        terminal.type(f"{password}\n")
    terminal.expect("The password is changed. All other sessions of the account have ended.")
    assert terminal.wait() == 0
    assert "miaow" not in terminal.output
    assert len(cat.run("sessions").splitlines()) == 2

    wrong = cat.fail("passwd", "--password-stdin", typed="secret\nother\n")
    assert wrong == "chatd: the current password is wrong\n"
    short = cat.fail("passwd", "--password-stdin", typed="miaow\nx\n")
    assert "5 to 1024 characters" in short
    cat.run("passwd", "--password-stdin", typed="miaow\nsecret\n")

    daemon.request("POST", TOKENS, {"username": "eve", "password": "secret"})
    assert cat.run("sessions", "--revoke-others") == "All other sessions have ended.\n"
    [_, last] = cat.run("sessions").splitlines()
    assert cat.run("sessions", "--revoke", last.split()[0]) == "Logged out eve.\n"
    assert cat.saved_login.load() is None


def test_an_interrupt_at_a_prompt_exits_quietly(
    daemon: Daemon, cat: User, terminals: list[Terminal]
) -> None:
    terminal = Terminal(cat, "login", "cat", "--server", daemon.url)
    terminals.append(terminal)
    terminal.expect("Password: ")
    # Python would not notice a signal just before its system call until that ends.
    wait_until(terminal.is_waiting, SECONDS)
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.output


def test_the_end_of_input_at_a_prompt_is_reported(
    daemon: Daemon, cat: User, terminals: list[Terminal]
) -> None:
    terminal = Terminal(cat, "login", "cat", "--server", daemon.url)
    terminals.append(terminal)
    terminal.expect("Password: ")
    terminal.type("\x04")
    assert terminal.wait() == 1
    assert "chatd: no input" in terminal.output
    assert "Traceback" not in terminal.output


def test_send_in_a_terminal_says_what_it_waits_for(
    ann: LoggedIn, terminals: list[Terminal]
) -> None:
    terminal = Terminal(ann, "send", ann.name)
    terminals.append(terminal)
    terminal.expect("Type the message; Ctrl-D on a new line sends it.\r\n")
    terminal.type("typed\n\x04")
    assert terminal.wait() == 0
    assert f"{ann.name}: typed" in ann.run("tail", "--since", "0", "--count", "1")


def test_an_interrupt_exits_with_status_130(ann: LoggedIn) -> None:
    with ann.start("tail", "--since", "0") as tail:
        ann.post(ann, "to myself")
        assert "to myself" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(SECONDS) == 130
        assert "Traceback" not in tail.stderr.read()


def test_a_closed_pipe_ends_tail_quietly(ann: LoggedIn) -> None:
    with ann.start("tail", "--since", "0") as tail:
        ann.post(ann, "one")
        tail.stdout.readline()
        tail.stdout.close()
        ann.post(ann, "two")
        assert tail.wait(SECONDS) == 0
        assert tail.stderr.read() == ""


def test_the_demo_runs_without_preparation(cat: User) -> None:
    output = cat.run("demo", "--once")
    folder = re.search(r"its data in (\S+)\.\n", output)
    assert folder is not None
    assert re.findall(r"\d\d:\d\d (ann|bob): ", output) == ["ann", "bob", "ann", "bob"]
    assert not Path(folder[1]).exists()


def test_the_demo_replies_until_interrupted(cat: User) -> None:
    with cat.start("demo") as demo:
        invitation = next(line for line in demo.stdout if line.startswith("Open "))
        url, password = re.findall(r"Open (\S+), .* password (\S+),", invitation)[0]
        cat.run("login", "ann", "--server", url, "--password-stdin", typed=f"{password}\n")
        cat.run("send", "bob", "three words more")
        # Two messages of the conversation came before it.
        output = cat.run("tail", "--since", "0", "--count", "3")
        assert "I read your 3 words" in output
        demo.send_signal(signal.SIGINT)
        assert demo.wait(SECONDS) == 130
    assert cat.fail("whoami")


def test_check_config_changes_nothing(cat: User) -> None:
    lines = cat.run("check-config", "--listen", "tcp:1:interface=127.0.0.1").splitlines()
    assert lines[1] == "listen on tcp:1:interface=127.0.0.1"
    assert lines[2].startswith("create the database ")
    assert not (cat.home / "chatd.db").exists()
    assert cat.fail("check-config", "--workers=2").startswith("chatd: workers: more than 1 needs")


def test_serve_runs_the_daemon(cat: User) -> None:
    with cat.start("serve", "--listen", "tcp:0:interface=127.0.0.1") as serving:
        for line in serving.stdout:
            if "is listening on" in line:
                break
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(SECONDS) == 0
    assert (cat.home / "chatd.db").exists()
    assert cat.run("serve", "--help").startswith("Usage: chatd serve [options]\n")
    assert cat.run("serve", "--version") == cat.run("--version")
    usage = "usage: chatd serve [options]\n"
    wrong = cat.fail("serve", "--nonsense")
    assert wrong == f"chatd: option --nonsense not recognized; {usage}"
    assert cat.fail("serve", "stray") == f"chatd: unexpected argument 'stray'; {usage}"


def test_completion_prints_a_script(cat: User) -> None:
    assert "register" in cat.run("completion", "bash")

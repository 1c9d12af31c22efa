"""A process that has imported chatd, and forks the daemons and commands that tests start.

Importing Twisted and chatd is most of the CPU time of a start. The fork server does it once; what
it forks has arguments, environment, folder and standard streams of its own, and runs like a process
that was started in the ordinary way, but that

- passwords are hashed with parameters that cost nothing, and
- objects are not freed one by one in the end, which costs more than all that a daemon does before.

There is one server, started when it is first needed; processes that pytest forks afterwards use it,
too. Tests of the start itself use `subprocess` instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryFile
from typing import IO, Any, Final

import twisted.internet
from argon2 import PasswordHasher
from twisted.application.service import IServiceMaker
from twisted.internet.endpoints import _SystemdParser
from twisted.plugin import getPlugins
from twisted.python.systemd import ListenFDs

import chatd.admin
import chatd.cli
import chatd.compose
import chatd.conformance
from chatd.api.api import API
from chatd.api.docs.docs_page import describe

RUN_SECONDS: Final = 30.0
"""What a command that ends by itself may take."""

_PACKAGES: Final = (chatd.admin, chatd.cli, chatd.compose, chatd.conformance)
"""Those whose modules are imported beforehand."""
_HASHING: Final = ("chatd.compose.service", "chatd.admin.passwords")
_MAX_REQUEST: Final = 1 << 17
_LISTENER: Final = 3
"""The descriptor of the first socket that systemd passes."""
_INTEGER: Final = struct.Struct("i")


Stream = int | IO[Any]
"""An open file, or its descriptor."""


class ForkedProcess:
    """A process forked by the fork server, with the methods of `subprocess.Popen` that tests use.

    `command` is the path of a Python program or "-m" and a module, then arguments. By default,
    standard input is empty and standard error goes to standard output. With `terminal`, standard
    input is a terminal, which becomes that of the process. A `listener` is passed as systemd does.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: Stream | None = None,
        stdout: Stream,
        stderr: Stream | None = None,
        terminal: bool = False,
        listener: socket.socket | None = None,
    ) -> None:
        self.args = list(command)
        self.returncode: int | None = None
        self._answers, answers = socket.socketpair()
        with answers, open(os.devnull) as nothing:
            request = {
                "command": self.args,
                "cwd": str(cwd),
                "env": dict(env),
                "terminal": terminal,
            }
            files = [answers, stdin or nothing, stdout, stderr or stdout]
            if listener is not None:
                files.append(listener)
            ForkServer.shared().send(json.dumps(request).encode(), files)
        try:
            self.pid = self._answer()
        except BaseException:
            self._answers.close()
            raise

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None if the process has not ended."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = self._answer()
        self._answers.close()

    def _answer(self) -> int:
        answer = self._answers.recv(_INTEGER.size, socket.MSG_WAITALL)
        if len(answer) < _INTEGER.size:
            raise ChildProcessError("the fork server has ended")
        value: int = _INTEGER.unpack(answer)[0]
        return value


def completed(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    typed: str = "",
    merged: bool = False,
    timeout: float = RUN_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `typed` is its standard input, `merged` adds errors to the output.

    Raises `subprocess.TimeoutExpired`.
    """
    with TemporaryFile("w+") as stdin, TemporaryFile("w+") as out, TemporaryFile("w+") as error:
        stdin.write(typed)
        stdin.seek(0)
        process = ForkedProcess(
            command, cwd=cwd, env=env, stdin=stdin, stdout=out, stderr=None if merged else error
        )
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(process.args, status, out.read(), error.read())


class ForkServer:
    """The fork server of this process and of those that it forks."""

    _lock: Final = threading.Lock()
    _shared: ForkServer | None = None

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=Path(__file__).resolve().parent.parent,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    @classmethod
    def shared(cls) -> ForkServer:
        """The server, which is started if necessary. Thread-safe."""
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    @classmethod
    def stop(cls) -> None:
        """Stop the server if this process has started it; what it has forked runs on."""
        with cls._lock:
            if cls._shared is not None and cls._shared._owner == os.getpid():
                cls._shared._socket.close()
                cls._shared._process.wait()
                cls._shared = None

    def send(self, request: bytes, files: Sequence[Stream | socket.socket]) -> None:
        """Request a process with these standard streams and this socket for its id and status."""
        descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
        socket.send_fds(self._socket, [request], descriptors)


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork a process for each request.

    Returns the command in each forked process, and None in this process when its parent has ended.
    """
    running: dict[int, socket.socket] = {}
    wakeup, notify = socket.socketpair()
    notify.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(notify.fileno())
    while True:
        ready = select.select([requests, wakeup], [], [])[0]
        if wakeup in ready:
            wakeup.recv(4096)
            _report_ended(running)
        if requests not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 5)
        if not request:
            return None
        answers, *files = descriptors
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _become(json.loads(request), files)
        for file in files:
            os.close(file)
        running[pid] = socket.socket(fileno=answers)
        running[pid].send(_INTEGER.pack(pid))


def _report_ended(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as answers:
                answers.send(_INTEGER.pack(os.waitstatus_to_exitcode(status)))


def _become(request: dict[str, Any], files: Sequence[int]) -> list[str]:
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(len(files), os.sysconf("SC_OPEN_MAX"))
    if request["terminal"]:
        os.login_tty(os.dup(0))
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    # It is ignored where the tests were started in the background of a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Klein imports the reactor, whose descriptors are closed now: the process installs its own.
    del sys.modules["twisted.internet.reactor"]
    del twisted.internet.reactor
    os.environ.clear()
    os.environ.update(request["env"])
    if len(files) > _LISTENER:
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        # Twisted has looked for them when it was imported.
        _SystemdParser._sddaemon = ListenFDs.fromEnvironment()
    os.chdir(request["cwd"])
    command: list[str] = request["command"]
    return command


def _cheap_hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def _run(command: list[str]) -> int:
    """Run a Python program or, after "-m", a module; returns the exit status.

    Exceptions are left to Python, which tells them.
    """
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
        if isinstance(status, int):
            return status
        raise
    return 0


def _main() -> None:
    statuses: list[int] = []

    def exit_now() -> None:
        for status in statuses:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    # What is registered first is called last.
    atexit.register(exit_now)
    for package in _PACKAGES:
        for found in iter_modules(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(".__main__"):
                importlib.import_module(found.name)
    # The plugins of twistd are modules, too.
    list(getPlugins(IServiceMaker))
    describe(API.calls)
    for module in _HASHING:
        vars(importlib.import_module(module))["owasp_hasher"] = _cheap_hasher
    # The collector of a forked process need not look at what was imported, nor copy its pages.
    gc.collect()
    gc.freeze()
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    if command is not None:
        statuses.append(_run(command))


if __name__ == "__main__":
    _main()

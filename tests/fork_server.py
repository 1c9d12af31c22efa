"""A process that has imported chatd, and forks the daemons and commands that tests start.

Importing Twisted and chatd is most of the CPU time of a start. The fork server does it once; what
it forks has arguments, environment, folder and standard streams of its own, and runs and exits like
a process that was started in the ordinary way. There is one server for each process of pytest,
started when it is first needed.

Tests of the start itself use `subprocess` instead.
"""

from __future__ import annotations

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
from typing import IO, Any, Final

import twisted.internet

_PRELOADED: Final = (
    "chatd.cli.runner",
    "chatd.compose.service",
    "chatd.tap",
    "twisted.scripts.twistd",
)
_MAX_REQUEST: Final = 1 << 17
_INTEGER: Final = struct.Struct("i")
_FIRST_DESCRIPTOR: Final = 3


Stream = int | IO[Any]
"""An open file, or its descriptor."""


class ForkedProcess:
    """A process forked by the fork server, with the methods of `subprocess.Popen` that tests use.

    `command` is the path of a Python program or "-m" and a module, then arguments. By default,
    standard input is empty and standard error goes to standard output. With `terminal`, standard
    input is a terminal, which becomes that of the process.
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
            ForkServer.shared().send(
                json.dumps(request).encode(),
                [stdin or nothing, stdout, stderr or stdout, answers],
            )
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


class ForkServer:
    """The fork server of this process."""

    _lock: Final = threading.Lock()
    _shared: ForkServer | None = None

    def __init__(self) -> None:
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
        """Stop the server if it was started; what it has forked runs on."""
        with cls._lock:
            if cls._shared is not None:
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
        request, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 4)
        if not request:
            return None
        *streams, answers = descriptors
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _become(json.loads(request), streams)
        for stream in streams:
            os.close(stream)
        running[pid] = socket.socket(fileno=answers)
        running[pid].send(_INTEGER.pack(pid))


def _report_ended(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as answers:
                answers.send(_INTEGER.pack(os.waitstatus_to_exitcode(status)))


def _become(request: dict[str, Any], streams: Sequence[int]) -> list[str]:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(_FIRST_DESCRIPTOR, os.sysconf("SC_OPEN_MAX"))
    if request["terminal"]:
        os.login_tty(os.dup(0))
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    # Klein imports the reactor, whose descriptors are closed now: the process installs its own.
    del sys.modules["twisted.internet.reactor"]
    del twisted.internet.reactor
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    command: list[str] = request["command"]
    return command


def _main() -> None:
    for module in _PRELOADED:
        importlib.import_module(module)
    # The collector of a forked process need not look at what was imported, nor copy its pages.
    gc.collect()
    gc.freeze()
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    if command is None:
        return
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    _main()

"""What is not the real program when docs/operations.md is run: what needs root or systemd.

- `SCRIPTS`: apt-get, git, the build of the package, install, pipx, podman, runuser and useradd.
- systemctl: starts and stops the real services, see `services`.
- nginx: the real one, with the options that it needs without root.
- chatd: the real one, forked by the fork server, since most commands here are it. `chatd doctor`
  holds polls for seconds instead of a minute.

The last three are done by the process of the test: the programs on the PATH ask it by a socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.fork_server import ForkedProcess
from tests.operations.services import Services
from tests.postgres_server import UNPRIVILEGED, temporary_folder, unprivileged

_APT_GET: Final = """
case $* in
*./dist/chatd_*.deb*)
    [ -e ROOT/etc/chatd/chatd.toml ] || cp packaging/chatd.toml ROOT/etc/chatd/
    cp packaging/systemd/* ROOT/etc/systemd/system/
    ;;
*" nginx") mkdir -p ROOT/etc/nginx ;;
*" prometheus") mkdir -p ROOT/etc/prometheus ;;
esac
"""
_INSTALL: Final = """
for argument; do
    shift
    case $argument in
    --owner=postgres) set -- "$@" OWNER ;;
    --group=* | --owner=*) ;;
    *) set -- "$@" "$argument" ;;
    esac
done
exec INSTALL "$@"
"""
_RUNUSER: Final = """
[ "$1" = -u ] && [ "$3" = -- ] || exit 1
export PGUSER=$2
shift 3
if [ "$PGUSER" = postgres ]; then exec SERVER "$@"; fi
exec "$@"
"""
SCRIPTS: Final = {
    # Installs what the packages install.
    "apt-get": _APT_GET,
    "git": '[ "$*" = pull ]',
    # Without the users and groups of the machine.
    "install": _INSTALL,
    "pipx": '[ "$*" = "install .[postgres]" ]',
    "podman": 'case $1 in build) [ -f "$5" ] ;; run | exec) ;; *) exit 1 ;; esac',
    # PostgreSQL knows by the name who connects.
    "runuser": _RUNUSER,
    "useradd": '[ "$#" -gt 0 ]',
}
"""ROOT is the scratch root, INSTALL the real program.

If this user is root, PostgreSQL's server runs as another one: SERVER runs a program as that, and
OWNER has `install` give it a folder.
"""
BUILD: Final = "mkdir -p dist && touch dist/chatd_0_all.deb"
"""packaging/debian/build."""

_ASKING: Final = ("chatd", "nginx", "systemctl")
_ASK: Final = Path(__file__).with_name("ask.py")
_MAX_CALL: Final = 1 << 20


class StandIns:
    """The stand-ins, as programs in the folder `bin`; adds to the environment what they need."""

    def __init__(
        self, bin: Path, root: Path, environment: dict[str, str], services: Services
    ) -> None:
        self._services = services
        self._environment = environment
        self._folder = temporary_folder("chatd-stand-ins-")
        self._running: list[ForkedProcess] = []
        self._foreground: ForkedProcess | None = None
        bin.mkdir()
        is_root = bool(unprivileged())
        values = {
            "ROOT": str(root),
            "INSTALL": _real("install"),
            "OWNER": f"--owner={UNPRIVILEGED}" if is_root else "",
            "SERVER": f"{_real('runuser')} -u {UNPRIVILEGED} --" if is_root else "",
        }
        for name, script in SCRIPTS.items():
            text = re.sub("|".join(values), lambda match: values[match[0]], script)
            _write(bin / name, f"#!/bin/sh\n{text}\n")
        for name in _ASKING:
            _write(bin / name, f"#!{sys.executable} -ISu\n{_ASK.read_text()}")
        _write(bin.parent / "clone" / "packaging" / "debian" / "build", f"#!/bin/sh\n{BUILD}\n")
        environment["STAND_INS"] = str(self._folder / "socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(environment["STAND_INS"])
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def foreground(self) -> ForkedProcess | None:
        """The daemon that is running in the foreground, if one is."""
        return self._foreground

    def close(self) -> None:
        """Answer no more calls."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._folder)

    def _serve(self) -> None:
        calls = []
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                break
            calls.append(threading.Thread(target=self._answer, args=(link,)))
            calls[-1].start()
        for process in self._running:
            process.kill()
        for call in calls:
            call.join()

    def _answer(self, link: socket.socket) -> None:
        with link:
            _, streams, _, _ = socket.recv_fds(link, 1, 3)
            try:
                with link.makefile("rb") as file:
                    cwd, count, *parts = file.read(_MAX_CALL).decode().split("\0")
                call, variables = parts[: int(count)], parts[int(count) :]
                environment = dict(variable.split("=", 1) for variable in variables)
                status = self._perform(call, Path(cwd), environment, streams)
            finally:
                for stream in streams:
                    os.close(stream)
            with contextlib.suppress(OSError):
                link.sendall(str(status).encode())

    def _perform(
        self, call: list[str], cwd: Path, environment: Mapping[str, str], streams: list[int]
    ) -> int:
        program, *arguments = call
        if program == "systemctl":
            text, status = self._services.systemctl(arguments)
            os.write(streams[1 if status == 0 else 2], text.encode())
            return status
        if program == "nginx":
            return self._services.nginx(arguments, streams[1])
        module = "tests.operations.short_doctor" if arguments[0] == "doctor" else "chatd.cli"
        process = ForkedProcess(
            ["-m", module, *arguments],
            cwd=cwd,
            env=environment,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
        )
        self._running.append(process)
        if arguments[0] == "serve":
            self._foreground = process
        try:
            return process.wait()
        finally:
            self._running.remove(process)
            if self._foreground is process:
                self._foreground = None


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _real(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None
    return path

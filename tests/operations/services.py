"""The services of the scratch machine, and systemctl, which starts and stops them.

Those of chatd are started as the units in the scratch root say, the others as Debian's units do.
"""

from __future__ import annotations

import fnmatch
import shlex
import signal
import socket
import subprocess
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Final, Protocol

from tests.daemon import wait_until
from tests.fork_server import ForkedProcess
from tests.integration.proxies import nginx_command, program
from tests.postgres_server import Server

SECONDS: Final = 30
LISTENS: Final = "is listening on"


class Process(Protocol):
    """A process of either kind."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


class Failed(Exception):
    """A unit that systemctl cannot do this with."""


class Unit:
    """A unit of chatd in the scratch root."""

    def __init__(self, root: Path, name: str) -> None:
        template, at, rest = name.partition("@")
        instance = rest.rpartition(".")[0]
        path = root / "etc/systemd/system" / (f"{template}@.service" if at else name)
        if not path.exists():
            raise Failed(f"Unit {name} could not be found.")
        self.name = name
        self.variables: dict[str, str] = {}
        self._parser = ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        self._parser.optionxform = str  # type: ignore[assignment, method-assign]
        text = path.read_text().replace("%i", instance)
        for line in text.splitlines():
            if line.startswith("Environment="):
                variable, _, value = line.removeprefix("Environment=").partition("=")
                self.variables[variable] = value
        self._parser.read_string(text)

    def get(self, section: str, name: str, default: str = "") -> str:
        """A setting."""
        return self._parser[section].get(name, default)

    def command(self) -> list[str]:
        """What it starts."""
        return shlex.split(self.get("Service", "ExecStart"))


class Services:
    """All services; `environment` is that of chatd's."""

    def __init__(
        self,
        root: Path,
        ports: Mapping[int, int],
        postgres: Server,
        postgres_settings: dict[str, str],
        environment: dict[str, str],
    ) -> None:
        self.root = root
        self._ports = ports
        self._postgres = postgres
        self._postgres_settings = postgres_settings
        self._environment = environment
        self._processes: dict[str, Process] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._log = root.parent / "journal"

    def systemctl(self, arguments: list[str]) -> tuple[str, int]:
        """Do what systemctl is asked for; returns its output and status."""
        options = {each for each in arguments if each.startswith("-")}
        verb, *names = [each for each in arguments if each not in options]
        try:
            if verb in ("enable", "disable"):
                for name in names:
                    self._exists(name)
                verb = {"enable": "start", "disable": "stop"}[verb] if "--now" in options else ""
            if verb in ("start", "stop", "restart", "reload", "status"):
                return "".join(getattr(self, f"_{verb}")(name) for name in names), 0
            if verb not in ("", "daemon-reload"):
                raise Failed(f"Unknown command verb {verb}.")
        except (Failed, AssertionError) as problem:
            return f"{problem}\n", 1
        return "", 0

    def logs(self) -> str:
        """What the services have logged."""
        return self._log.read_text() if self._log.exists() else ""

    def close(self) -> None:
        """Stop what is running."""
        for name, process in self._processes.items():
            if name == "nginx.service":
                # Killed, it would leave the processes that it has started.
                process.send_signal(signal.SIGTERM)
            else:
                process.kill()
            process.wait(SECONDS)
        for held in self._sockets.values():
            held.close()

    def _exists(self, name: str) -> None:
        if name.startswith("chatd"):
            Unit(self.root, name)

    def _start(self, name: str) -> str:
        if name == "postgresql.service":
            if not self._postgres.is_running:
                self._postgres.start(**self._postgres_settings)
            return ""
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            return ""
        if name in ("nginx.service", "prometheus.service"):
            self._processes[name] = self._start_other(name)
        elif name.endswith(".socket"):
            self._hold(Unit(self.root, name))
        elif name.endswith(".timer"):
            self._exists(name.replace(".timer", ".service"))
        else:
            self._start_chatd(Unit(self.root, name))
        return ""

    def _stop(self, name: str) -> str:
        if "*" in name:
            return "".join(self._stop(each) for each in fnmatch.filter(self._processes, name))
        if name == "postgresql.service":
            self._postgres.stop()
        if name in self._sockets:
            self._sockets.pop(name).close()
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            status = process.wait(SECONDS)
            if status != 0:
                raise Failed(f"{name} has ended with status {status}")
        return ""

    def _restart(self, name: str) -> str:
        return self._stop(name) + self._start(name)

    def _reload(self, name: str) -> str:
        if name == "nginx.service":
            self._nginx()
        self._running(name).send_signal(signal.SIGHUP)
        return ""

    def _status(self, name: str) -> str:
        self._running(name)
        return f"{name} - active (running)\n"

    def _running(self, name: str) -> Process:
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            raise Failed(f"{name} is not running")
        return process

    def _start_other(self, name: str) -> Process:
        if name == "nginx.service":
            line = self._nginx()
            port = self._ports[443]
        else:
            port = self._ports[9090]
            line = [
                program("prometheus"),
                f"--config.file={self.root}/etc/prometheus/prometheus.yml",
                f"--storage.tsdb.path={self.root}/var/lib/prometheus",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
        with self._log.open("ab") as log:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: _listens(port, process), SECONDS)
        return process

    def _nginx(self) -> list[str]:
        """Read the configuration again."""
        return nginx_command((self.root / "etc/nginx/nginx.conf").read_text(), self.root / "run")

    def nginx(self, arguments: list[str], output: int) -> int:
        """Run nginx with these options."""
        line = [*self._nginx(), *arguments]
        return subprocess.run(line, stdout=output, stderr=output, check=False).returncode

    def _hold(self, unit: Unit) -> None:
        host, _, port = unit.get("Socket", "ListenStream").partition(":")
        self._sockets[unit.name] = socket.create_server((host, int(port)))

    def _start_chatd(self, unit: Unit) -> None:
        variables = {**self._environment, **unit.variables, "PGUSER": unit.get("Service", "User")}
        for folder in unit.get("Service", "StateDirectory").split():
            (self.root / "var/lib" / folder).mkdir(exist_ok=True)
        begins = len(self.logs())
        with self._log.open("ab") as log:
            process = self._launch(unit, variables, log.fileno())
        if unit.get("Service", "Type") == "oneshot":
            if process.wait(SECONDS) != 0:
                raise Failed(f"{unit.name} has failed: {self.logs()[begins:]}")
            return
        self._processes[unit.name] = process
        if unit.get("Service", "Type", "simple") == "simple":
            return
        wait_until(lambda: LISTENS in self.logs()[begins:] or process.poll() is not None, SECONDS)
        self._running(unit.name)

    def _launch(self, unit: Unit, variables: dict[str, str], log: int) -> Process:
        cwd = self.root / "var/lib/chatd"
        command, *arguments = unit.command()
        if command != "/usr/bin/chatd":
            return subprocess.Popen(
                [command, *arguments],
                cwd=cwd,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        held = self._sockets.get(unit.name.replace(".service", ".socket"))
        if held is not None:
            variables["LISTEN_FDNAMES"] = unit.name.removesuffix(".service")
        line = ["-m", "chatd.cli", *arguments]
        return ForkedProcess(line, cwd=cwd, env=variables, stdout=log, listener=held)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise Failed(f"{process.args!r} has ended")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

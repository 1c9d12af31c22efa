"""Server processes: pinned to a core, started, looked at and stopped."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bench.load_client import Address

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 30
STOP_SECONDS = 15

PORT_TRIES = 1000
_GIVEN_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class StartFailed(Exception):
    """A server did not begin to listen."""


def free_port(count: int = 1) -> int:
    """The first of so many ports in a row of the loopback interface that nobody listens on.

    They are none of those that the kernel gives to outgoing connections: such a connection, even a
    minute after its end, keeps everybody from listening on its port.
    """
    first_given = int(_GIVEN_PORTS.read_text().split()[0])
    for _ in range(PORT_TRIES):
        first = random.randrange(first_given // 2, first_given - count)
        if all(_is_free(first + offset) for offset in range(count)):
            return first
    raise StartFailed("found no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Cores:
    """One core for servers and another for the generator, where there are two."""

    def __init__(self, usable: Collection[int]) -> None:
        pair = sorted(usable)[:2]
        self.server: int | None = pair[0] if len(pair) == 2 else None
        self.generator: int | None = pair[1] if len(pair) == 2 else None

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Two of the cores that this process may use."""
        return cls(os.sched_getaffinity(0))

    def pin_generator(self) -> None:
        """Keep this process on its core."""
        if self.generator is not None:
            os.sched_setaffinity(0, {self.generator})

    def pinned(self, command: Sequence[str]) -> list[str]:
        """The command, kept on the servers' core."""
        if self.server is None:
            return list(command)
        return ["taskset", "--cpu-list", str(self.server), *command]


class ServerProcess:
    """A server that listens on `address`, its output in a file."""

    def __init__(
        self,
        command: Sequence[str],
        address: Address,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self._output = folder / "output.log"
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        try:
            self._await_listening()
        except BaseException:
            self.stop()
            raise

    def _await_listening(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(self.address, timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        said = self._output.read_text("utf-8", "replace")[-2000:]
        raise StartFailed(f"{self._process.args!r} does not listen: {said}")

    @property
    def cpu_seconds(self) -> float:
        """Seconds of CPU that the process and its children have used."""
        return sum(map(cpu_seconds, family(self._process.pid)))

    @property
    def resident_bytes(self) -> int:
        """Memory that they have, without what the kernel keeps for their sockets."""
        return sum(map(resident_bytes, family(self._process.pid)))

    def stop(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text("ascii").split():
            found += family(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process that is not swapped out."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU, of user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_busy_seconds() -> float:
    """Seconds of CPU that all processes together have used since the machine started."""
    fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / TICKS

"""Server processes: CPU pinning, start, resource usage and stop."""

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
_EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class StartError(Exception):
    """A server did not start to listen."""


def free_port(count: int = 1) -> int:
    """The first of `count` consecutive free ports on the loopback interface.

    They are outside the ephemeral range: an outgoing connection, even a minute after it was closed,
    prevents listening on its port. They are given once: until this process ends, neither it nor
    another one is given them by this function.
    """
    first_ephemeral = int(_EPHEMERAL_PORTS.read_text().split()[0])
    for _ in range(PORT_TRIES):
        first = random.randrange(first_ephemeral // 2, first_ephemeral - count)
        ports = range(first, first + count)
        if all(is_free(port) and _reserve(port) for port in ports):
            return first
    raise StartError("no free ports found")


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Whether no other caller of `free_port` has this port, whose server may not listen yet."""
    # A name in Linux's abstract namespace goes with the process, however that ends.
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0chatd-port-{port}")
    except OSError:
        lock.close()
        return False
    lock.detach()
    return True


class Cores:
    """Two CPU cores if available, one for servers and one for the load generator."""

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
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise

    def _wait_until_listening(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(self.address, timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        output = self._output.read_text("utf-8", "replace")[-2000:]
        raise StartError(f"{self._process.args!r} does not listen: {output}")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds used by the process and its children."""
        return sum(map(cpu_seconds, process_tree(self._process.pid)))

    @property
    def main_thread_cpu_seconds(self) -> float:
        """CPU seconds used by the main thread of the process."""
        return cpu_seconds(self.pid, self.pid)

    @property
    def resident_bytes(self) -> int:
        """Resident memory of both, without socket buffers in the kernel."""
        return sum(map(resident_bytes, process_tree(self._process.pid)))

    def stop(self) -> None:
        """Stop the process."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def process_tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text("ascii").split():
            found += process_tree(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int, thread: int | None = None) -> float:
    """User and system CPU seconds of a process, or of one of its threads."""
    stat = Path(f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat")
    fields = stat.read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_busy_seconds() -> float:
    """CPU seconds used by all processes since the machine started."""
    fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / TICKS

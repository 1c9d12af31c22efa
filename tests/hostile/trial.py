"""One attack on one daemon: what an innocent client and the memory notice of it.

The daemon has one core, and attackers and innocent clients another one, of which the attackers take
what the others leave: what is measured is the daemon.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench.processes import free_port
from tests.daemon import ROOT, Client, Daemon, command, environment, wait_until
from tests.hostile.attacker import ATTACKS
from tests.hostile.attacks import Attack, Target
from tests.hostile.database import fill
from tests.hostile.innocent import Account, innocent
from tests.integration.certificate import write_certificate
from tests.integration.proxies import proxy

KINDS: Final = ("page", "send", "log in", "new", "users", "conversations")
"""What is measured, see `tests.hostile.innocent`."""

FACTOR: Final = 3.0
FLOOR_SECONDS: Final = 0.05
"""What an innocent client may notice: so many times the quiet figure, or so much."""

MEMORY_MEGABYTES: Final = 300.0
"""What an attack may cost while it lasts: unread answers, connections, queues."""

ATTACKER_NICENESS: Final = 10

PROXIES: Final = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
"""The configurations in docs/proxies, by name."""


class Result(msgspec.Struct):
    """p99 by kind, quiet and under attack, in seconds; megabytes before, at the peak and after."""

    name: str
    quiet: dict[str, float]
    attacked: dict[str, float]
    refusals: int
    admin_seconds: float
    before: float
    peak: float
    after: float

    def is_bounded(self, kind: str) -> bool:
        """Whether an innocent client may notice as much as it did."""
        return self.attacked[kind] <= max(FACTOR * self.quiet[kind], FLOOR_SECONDS)

    @property
    def is_harmless(self) -> bool:
        """Whether nobody was refused, and memory is bounded."""
        return not self.refusals and self.peak - self.before <= MEMORY_MEGABYTES

    @property
    def row(self) -> str:
        """A row of the table, in milliseconds and megabytes."""
        figures = " | ".join(
            f"{self.quiet[kind] * 1000:.0f} → {self.attacked[kind] * 1000:.0f}" for kind in KINDS
        )
        admin = f"{self.admin_seconds * 1000:.0f}"
        memory = f"{self.before:.0f} → {self.peak:.0f} → {self.after:.0f}"
        return f"| `{self.name}` | {figures} | {self.refusals} | {admin} | {memory} |"


HEADER: Final = (
    "| attack | page | send | log-in | new | users | conversations | refused | admin | memory |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


class Trial:
    """A daemon with its limits on, the accounts of an attacker, and that of an innocent client."""

    def __init__(self, daemon: Daemon, target: Target, account: Account) -> None:
        self.daemon = daemon
        self._target = target
        self._account = account

    def run(self, name: str, seconds: float) -> Result:
        """Measure for so many seconds without the attack, and then with it, or for longer if it
        needs that."""
        before = megabytes(self.daemon.pid)
        with innocent(self._account) as quiet:
            time.sleep(seconds)
        with attacker(name) as attack, Sampler(self.daemon) as sampler:
            # The first moments, in which everything is made, count as well.
            with innocent(self._account) as attacked:
                attack(self._target)
                time.sleep(max(seconds, ATTACKS[name].seconds))
        time.sleep(min(seconds, 3.0))
        return Result(
            name,
            {kind: quiet[0].p99(kind) for kind in KINDS},
            {kind: attacked[0].p99(kind) for kind in KINDS},
            attacked[0].refusals,
            sampler.slowest,
            before,
            sampler.peak,
            megabytes(self.daemon.pid),
        )


@contextmanager
def attacker(name: str) -> Iterator[Callable[[Target], None]]:
    """A process that begins an attack when it is given the target."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.attacker", name],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    def attack(target: Target) -> None:
        stdin.write(msgspec.json.encode(target))
        stdin.close()

    try:
        os.setpriority(
            os.PRIO_PROCESS,
            process.pid,
            os.getpriority(os.PRIO_PROCESS, 0) + ATTACKER_NICENESS,
        )
        assert process.stdout.readline().decode().strip() == name
        yield attack
        assert process.poll() is None, "the attack has ended by itself"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def trial(folder: Path, attack: Attack, behind: str | None = None) -> Iterator[Trial]:
    """A new daemon with what an attack needs, perhaps behind one of `PROXIES`."""
    accounts = fill(folder / "chatd.db", attack)
    pem = folder / "server.pem"
    write_certificate(pem)
    port = free_port()
    line = command(
        *("--listen", f"tcp:{port}:interface=127.0.0.1"),
        *("--listen", f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"),
        *("--admin", "tcp:0:interface=127.0.0.1"),
        *(("--trusted-proxies", "127.0.0.1/32") if behind else ()),
    )
    limited = ["sh", "-c", 'ulimit -n "$0"; exec "$@"', str(attack.descriptors), *line]
    with ExitStack() as stack:
        with core(0):
            daemon = stack.enter_context(Daemon(folder, command_line=limited, forked=False))
        stack.enter_context(core(-1))
        tls = re.search(r"https://127\.0\.0\.1:(\d+)", daemon.logged())
        assert tls is not None
        target = Target(daemon.port, int(tls[1]), bool(behind), accounts.attacker)
        account = Account(daemon.port, None, "innocent", *accounts.innocent)
        if behind:
            front = stack.enter_context(
                proxy(PROXIES[behind], folder, {8081: daemon.port, 8082: daemon.port})
            )
            target.port = target.tls_port = account.port = front.port
            account.cafile = str(folder / "proxy.pem")
            probe = front.client()
            wait_until(lambda: probe.get("/readyz").status == 200, 10)
            probe.close()
        yield Trial(daemon, target, account)


@contextmanager
def core(number: int) -> Iterator[None]:
    """Have processes that are started meanwhile use one of the cores of this one."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Sampler:
    """Memory of a daemon, and how long its operators' listener takes, while the context lasts."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak = 0.0
        self.slowest = 0.0

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, megabytes(self._daemon.pid))
            began = time.monotonic()
            client = Client(self._daemon.admin_port, timeout=20)
            # A probe whose connection is reset fails the trial.
            assert client.get("/healthz").status == 200
            client.close()
            self.slowest = max(self.slowest, time.monotonic() - began)


def megabytes(pid: int) -> float:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")

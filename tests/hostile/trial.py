"""One attack on one daemon: what an innocent client and the memory notice of it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.daemon import CHATS, ROOT, Client, Daemon, bearer, command, environment
from tests.hostile.attacks import WIDE, Target
from tests.hostile.innocent import Innocent
from tests.integration.certificate import write_certificate

KINDS: Final = ("page", "send", "log in")

ACCOUNTS: Final = 40
"""Of the attacker: what one address may register at once."""

DESCRIPTORS: Final = 1500
"""Of the daemon: few enough for an attack to use them up."""

FACTOR: Final = 3.0
FLOOR_SECONDS: Final = 0.05
"""What an innocent client may notice: so many times the quiet figure, or so much."""


MEMORY_MEGABYTES: Final = 300.0
"""What an attack may cost while it lasts: unread answers, connections, queues."""


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
    "| attack | page | send | log-in | refused | admin | memory |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


class Trial:
    """A daemon with its limits on, the accounts of an attacker, and that of an innocent client."""

    def __init__(self, daemon: Daemon, accounts: int) -> None:
        self.daemon = daemon
        found = re.search(r"https://127\.0\.0\.1:(\d+)", daemon.logged())
        assert found is not None
        tokens = {}
        for number in range(accounts):
            user_id = daemon.register(f"attacker{number}")
            tokens[user_id] = daemon.token(f"attacker{number}")
        self.target = Target(daemon.port, int(found[1]), tokens)
        first = self.target.users[0]
        client = daemon.client(bearer(tokens[first]))
        for _ in range(100):
            assert client.request("POST", CHATS, {"user_id": first, "message": WIDE}).status == 201
        self._innocent = ("innocent", daemon.register("innocent"), daemon.token("innocent"))

    def run(self, name: str, seconds: float) -> Result:
        """Measure for so many seconds without the attack, and then with it."""
        before = megabytes(self.daemon.pid)
        with self._client() as quiet:
            time.sleep(seconds)
        with attacking(name, self.target), Sampler(self.daemon) as sampler:
            # The first moments, in which everything is made, count as well.
            with self._client() as attacked:
                time.sleep(seconds)
        time.sleep(min(seconds, 3.0))
        return Result(
            name,
            {kind: quiet.p99(kind) for kind in KINDS},
            {kind: attacked.p99(kind) for kind in KINDS},
            attacked.refusals,
            sampler.slowest,
            before,
            sampler.peak,
            megabytes(self.daemon.pid),
        )

    def _client(self) -> Innocent:
        return Innocent(self.daemon, *self._innocent)


@contextmanager
def attacking(name: str, target: Target) -> Iterator[None]:
    """An attack under way, in a process of its own."""
    attacker = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.attacks", name],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    try:
        assert attacker.stdout.readline().decode().strip() == name
        attacker.stdin.write(msgspec.json.encode(target))
        attacker.stdin.close()
        yield
        assert attacker.poll() is None, "the attack has ended by itself"
    finally:
        attacker.kill()
        attacker.wait()
        attacker.stdout.close()


@contextmanager
def trial(folder: Path, *arguments: str, accounts: int = ACCOUNTS) -> Iterator[Trial]:
    """A new daemon to be attacked, by somebody with so many accounts."""
    pem = folder / "server.pem"
    write_certificate(pem)
    line = command(
        *("--listen", "tcp:0:interface=127.0.0.1"),
        *("--listen", f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"),
        *("--admin", "tcp:0:interface=127.0.0.1"),
        *arguments,
    )
    limited = ["sh", "-c", 'ulimit -n "$0"; exec "$@"', str(DESCRIPTORS), *line]
    with Daemon(folder, command_line=limited, forked=False) as daemon:
        yield Trial(daemon, accounts)


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

"""What `chatd db backup` costs those who send meanwhile.

Clients send without a pause while the database is copied again and again, and while it is not, in
turns. The figure is the 99th percentile of the latency of sends; it may grow by a fifth. Nothing
else may run on the machine. A database on PostgreSQL has to be new.

    python -m bench.backup
    python -m bench.backup --messages 1000000 --rounds 10 --db postgresql:///chatd_backup
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from bench.chat_api import ChatAPI, ChatSender
from bench.fixtures import Fixtures, populate
from bench.load_client import LoadClient, now
from bench.machine import describe
from bench.processes import Cores, ServerProcess, free_port

USERS: Final = 200
SENDERS: Final = 16
WARM_UP_SECONDS: Final = 3.0
COPY_SECONDS: Final = 3600.0
MAX_GROWTH: Final = 0.2


class Latency(NamedTuple):
    """Latencies of sends in milliseconds, and how many there were a second."""

    p50: float
    p99: float
    most: float
    rate: float


class Sends:
    """Senders that send again as soon as they have a response."""

    def __init__(self, client: LoadClient, api: ChatAPI) -> None:
        self._recipients = 0
        self.latencies: list[float] = []
        for number in range(SENDERS):
            self._send(api.sender(client, number))

    def _send(self, sender: ChatSender) -> None:
        self._recipients += 1
        began = now()

        def answered(status: int, head: bytes, body: bytes) -> None:
            sender.acknowledge(status, head, body)
            self.latencies.append(now() - began)
            self._send(sender)

        sender.connection.request(sender.send(self._recipients % USERS, "hello"), answered)


class Copies:
    """Processes that copy the database, one after the other."""

    def __init__(self, db: str, folder: Path) -> None:
        self._db = db
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.number = 0

    def go_on(self) -> bool:
        """Begin another copy if the last one is finished; False, so that the load runs on."""
        if self._process is not None and self._process.poll() is None:
            return False
        self._finish()
        target = self._folder / f"{self.number}.copy"
        line = [sys.executable, "-m", "chatd.cli", "db", "backup", "--db", self._db, str(target)]
        self._process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        return False

    def end(self) -> bool:
        """Whether the last copy is finished; no other begins."""
        if self._process is not None and self._process.poll() is None:
            return False
        self._finish()
        return True

    def _finish(self) -> None:
        if self._process is not None:
            if self._process.returncode:
                raise RuntimeError("a copy has failed")
            (self._folder / f"{self.number}.copy").unlink()
            self.number += 1
        self._process = None


def summary(latencies: list[float], seconds: float) -> Latency:
    """Percentiles of what was measured."""
    ordered = sorted(1000 * each for each in latencies)
    return Latency(
        ordered[len(ordered) // 2],
        ordered[len(ordered) * 99 // 100],
        ordered[-1],
        len(ordered) / seconds,
    )


def measure(db: str, folder: Path, rounds: int, seconds: float) -> list[tuple[Latency, Latency]]:
    """The latencies without copies and with them, of each round."""
    cores = Cores.of_this_machine()
    address = ("127.0.0.1", free_port())
    options = ["--listen", f"tcp:{address[1]}:interface=127.0.0.1", "--rate-limits", "off"]
    command = [sys.executable, "-m", "chatd.cli", "serve", "--db", db, *options]
    fixtures = Fixtures.load(folder / "accounts.json")
    server = ServerProcess(cores.pinned(command), address, folder)
    cores.pin_generator()
    client = LoadClient()
    copies = Copies(db, folder)
    found = []
    try:
        sends = Sends(client, ChatAPI(address, fixtures))
        client.run_until(now() + WARM_UP_SECONDS)
        for _ in range(rounds):
            pair = []
            for done in (None, copies.go_on):
                sends.latencies = []
                began = now()
                client.run_until(began + seconds, done)
                pair.append(summary(sends.latencies, now() - began))
            # The rest of the last copy belongs to neither, nor what follows it at once.
            client.run_until(now() + COPY_SECONDS, copies.end)
            client.run_until(now() + WARM_UP_SECONDS)
            found.append((pair[0], pair[1]))
            print(row("without", pair[0]), row("with", pair[1]), sep="\n", flush=True)
    finally:
        client.close()
        server.stop()
    print(f"{copies.number} copies")
    return found


def row(name: str, latency: Latency) -> str:
    """A line of the report."""
    return (
        f"{name:8} p50 {latency.p50:7.2f} ms  p99 {latency.p99:7.2f} ms  "
        f"most {latency.most:8.2f} ms  {latency.rate:7.0f} sends/s"
    )


def main() -> int:
    """Measure and report; the status is 1 if others notice too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--db", help="a new database; by default an SQLite file in a new folder")
    parser.add_argument("--messages", type=int, default=300_000, help="how many are there before")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each half of a round")
    parser.add_argument(
        "--folder", type=Path, help="where the file and the copies are: a real disk"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chatd-backup-", dir=args.folder) as name:
        folder = Path(name)
        db = args.db or f"sqlite:{folder}/chatd.db"
        messages = [args.messages // USERS]
        accounts = folder / "accounts.json"
        populate(db, accounts, users=USERS, senders=SENDERS, messages=messages)
        print(*describe().values(), sep=", ")
        found = measure(db, folder, args.rounds, args.seconds)
    growth = statistics.median(loaded.p99 / quiet.p99 - 1 for quiet, loaded in found)
    print(f"p99 with copies: {growth:+.0%}, the median of {len(found)} rounds")
    return 1 if growth > MAX_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())

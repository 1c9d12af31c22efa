"""What a delivery costs as processes are added, with PostgreSQL's NOTIFY and with NATS.

    python -m bench.scale --db postgresql:///bench --processes 2,4,8 --seconds 10

Each process has a port of its own, and holds an equal share of the users' polls; if they are
skewed, the first one holds half of all. Each is sent messages over as many connections, to users at
random: so a process commits as many at once as before, unless it has to do with those of others.
With `--rate`, the cost falls as processes are added, because what a process does for one message
alone at first it does for several then. What counts is CPU time: that of chatd, of the
database's server, which must run on this machine, and of nats-server, for each delivery. What the
same processes use while nothing is sent is measured before, shown by itself, and subtracted. The
buses take turns, so that what else the machine does affects both alike. Processes that only take
what others leave keep the cores awake: to wake one for a delivery costs a virtual machine as much
as the delivery, and happens less often the more processes there are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.chat_api import ChatAPI, ChatFollower
from bench.deliveries import send_at
from bench.delivery_check import DeliveryCheck
from bench.fixtures import Fixtures, populate
from bench.load_client import Address, LoadClient, now
from bench.processes import (
    ServerProcess,
    cpu_seconds,
    free_port,
    machine_busy_seconds,
    process_tree,
)
from bench.servers import MAX_POLLS, SYSTEM_PATH
from bench.traffic import Followers, Senders
from bench.usage import DRAIN_SECONDS

BUSES: Final = ("notify", "nats")
SENDERS: Final = 8
"""Connections to each process that send."""
SETTLE_SECONDS: Final = 4.0
"""New subscriptions are checked, and all polls woken once, before the measurement."""
IDLE_SECONDS: Final = 4.0
MICRO: Final = 1e6


class Figures(NamedTuple):
    """A measurement: CPU microseconds for each delivery, in all processes of a kind."""

    bus: str
    processes: int
    spread: str
    deliveries: int
    rate: float
    """Deliveries per second; other programs affect it more than the figures below."""
    chatd: float
    database: float
    nats: float
    idle: float
    """CPU of all of them while nothing is sent, in percent of a core."""
    others: float
    """CPU of the generator and of all else that ran on the machine, in percent of a core."""
    missing: int

    def row(self) -> str:
        """A line of the table."""
        total = self.chatd + self.database + self.nats
        return (
            f"| {self.bus} | {self.processes} | {self.spread} | {self.rate:,.0f}"
            f" | {self.chatd:.0f} | {self.database:.0f} | {self.nats:.0f} | {total:.0f}"
            f" | {self.idle:.0f} % | {self.others:.0f} % | {self.missing} |"
        )


Place = Callable[[int], int]

HEAD: Final = (
    "| bus | processes | polls | deliveries/s | chatd µs | database µs | NATS µs | together µs"
    " | idle CPU | other CPU | missing |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


class Spread(ChatAPI):
    """The API of several processes; `place` is the process of a user's poll."""

    def __init__(
        self, apis: Sequence[ChatAPI], address: Address, fixtures: Fixtures, place: Place
    ) -> None:
        super().__init__(address, fixtures)
        self._apis = apis
        self._place = place

    def follower(self, client: LoadClient, user: int) -> ChatFollower:
        """The poll of a user."""
        return self._apis[self._place(user)].follower(client, user)


def evenly(processes: int) -> Place:
    """Each process holds as many polls."""
    return lambda user: user % processes


def skewed(processes: int) -> Place:
    """The first process holds half of the polls, the others the rest."""
    return lambda user: 0 if user % 2 or processes == 1 else 1 + user // 2 % (processes - 1)


SPREADS: Final = {"even": evenly, "skewed": skewed}


class Database:
    """CPU time of a PostgreSQL server on this machine."""

    def __init__(self, db: str) -> None:
        import psycopg2

        with contextlib.closing(psycopg2.connect(db)) as connection:
            backend = Path(f"/proc/{connection.get_backend_pid()}/status")
            lines = backend.read_text("utf-8").splitlines()
        [parent] = [line.split()[1] for line in lines if line.startswith("PPid:")]
        self._postmaster = int(parent)

    def cpu_seconds(self) -> float:
        """CPU seconds of the processes that are running."""
        while True:
            # Those that vacuum come and go.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                return sum(map(cpu_seconds, process_tree(self._postmaster)))


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[ServerProcess]:
    """A NATS server."""
    program = shutil.which("nats-server", path=SYSTEM_PATH)
    if program is None:
        raise SystemExit("bench.scale needs nats-server: on Debian, apt-get install nats-server")
    port = free_port()
    server = ServerProcess(
        [program, "--addr", "127.0.0.1", "--port", str(port)], ("127.0.0.1", port), folder
    )
    try:
        yield server
    finally:
        server.stop()


class Spinners:
    """A process for each core that runs only where nothing else does, while the context lasts."""

    def __enter__(self) -> Spinners:
        self._processes = [
            subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in os.sched_getaffinity(0)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def cpu_seconds(self) -> float:
        """The CPU time that they have used."""
        return sum(cpu_seconds(process.pid) for process in self._processes)


_SPIN: Final = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


@contextlib.contextmanager
def daemons(
    count: int, db: str, folder: Path, options: Sequence[str]
) -> Iterator[list[ServerProcess]]:
    """So many processes of chatd."""
    twistd = str(Path(sys.executable).with_name("twistd"))
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            port = free_port()
            own = folder / str(number)
            own.mkdir(exist_ok=True)
            command = [
                *(twistd, "--nodaemon", "--pidfile=", "chatd", "--rate-limits", "off"),
                *("--listen", f"tcp:{port}:interface=127.0.0.1:backlog=4096", "--db", db),
                *("--max-polls", str(MAX_POLLS), *options),
            ]
            process = ServerProcess(command, ("127.0.0.1", port), own)
            stack.callback(process.stop)
            started.append(process)
        yield started


def measure(
    bus: str,
    processes: Sequence[ServerProcess],
    database: Database,
    nats: ServerProcess | None,
    spinners: Spinners,
    fixtures: Fixtures,
    spread: str,
    rate: float,
    seconds: float,
) -> Figures:
    """Send `rate` messages per second to each process for some seconds; 0: as many as it takes."""
    apis = [ChatAPI(process.address, fixtures) for process in processes]
    place = SPREADS[spread](len(apis))
    protocol = Spread(apis, processes[0].address, fixtures, place)
    users = len(fixtures.users)
    client = LoadClient()

    def usage() -> list[float]:
        chatd = sum(process.cpu_seconds for process in processes)
        return [chatd, database.cpu_seconds(), 0.0 if nats is None else nats.cpu_seconds]

    def used(seconds: float) -> list[float]:
        """CPU of chatd, database and NATS, in cores."""
        before, since = usage(), now()
        client.run_until(since + seconds)
        took = now() - since
        return [(end - begin) / took for begin, end in zip(before, usage(), strict=True)]

    try:
        check = DeliveryCheck(users)
        Followers(client, protocol, users, check).start()
        client.run_until(now() + SETTLE_SECONDS)
        idle = used(IDLE_SECONDS)
        sending = [Senders(client, api, SENDERS, users, check) for api in apis]
        until = now() + 1 + seconds
        for senders in sending:
            if rate:
                send_at(client, senders, rate, until)
            else:
                senders.repeat()
        client.run_until(now() + 1)
        arrived, since = check.arrived, now()
        busy = machine_busy_seconds() - spinners.cpu_seconds()
        cores = used(seconds)
        took, count = now() - since, check.arrived - arrived
        busy = (machine_busy_seconds() - spinners.cpu_seconds() - busy) / took
        for senders in sending:
            senders.stop()
        client.run_until(
            now() + DRAIN_SECONDS,
            lambda: all(each.idle for each in sending) and check.arrived == len(check),
        )
        missing = len(check) - check.arrived
    finally:
        client.close()
    arriving = max(count, 1) / took
    chatd, db, of_nats = (
        MICRO * (each - without) / arriving for each, without in zip(cores, idle, strict=True)
    )
    return Figures(
        bus=bus,
        processes=len(processes),
        spread=spread,
        deliveries=count,
        rate=arriving,
        chatd=chatd,
        database=db,
        nats=of_nats,
        idle=100 * sum(idle),
        others=100 * (busy - sum(cores)),
        missing=missing,
    )


def run(options: argparse.Namespace, report: Callable[[Figures], None]) -> None:
    """All measurements."""
    with tempfile.TemporaryDirectory() as name, nats_server(Path(name)) as nats, Spinners() as spin:
        folder = Path(name)
        path = folder / "accounts.json"
        populate(options.db, path, users=options.users, senders=SENDERS, messages=[0])
        fixtures = Fixtures.load(path)
        database = Database(options.db)
        address = f"nats://127.0.0.1:{nats.address[1]}"
        for _ in range(options.rounds):
            for spread in options.spreads:
                for count in options.processes:
                    for bus in BUSES:
                        extra = ["--bus", address] if bus == "nats" else []
                        with daemons(count, options.db, folder, extra) as processes:
                            used = nats if bus == "nats" else None
                            report(
                                measure(
                                    bus,
                                    processes,
                                    database,
                                    used,
                                    spin,
                                    fixtures,
                                    spread,
                                    options.rate,
                                    options.seconds,
                                )
                            )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])

    def numbers(text: str) -> list[int]:
        return list(map(int, text.split(",")))

    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in SPREADS]:
            parser.error(f"unknown: {unknown[0]}")
        return found

    parser.add_argument("--db", required=True, help="postgresql://... of a server on this machine")
    parser.add_argument("--processes", type=numbers, default=[2, 4, 8], help="default: 2,4,8")
    parser.add_argument("--spreads", type=names, default=list(SPREADS), help="even,skewed")
    parser.add_argument("--users", type=int, default=800, help="held polls (800)")
    parser.add_argument(
        "--rate",
        type=float,
        default=0,
        help="messages per second to each process; 0: the next one as soon as one is stored (0)",
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (10)")
    parser.add_argument("--rounds", type=int, default=1, help="how often all is repeated (1)")
    parser.add_argument("--output", type=Path, help="a file for the figures as JSON")
    options = parser.parse_args()
    found: list[Figures] = []

    def report(figures: Figures) -> None:
        found.append(figures)
        print(figures.row(), flush=True)

    print(HEAD, flush=True)
    run(options, report)
    if options.output is not None:
        options.output.write_text(
            json.dumps([each._asdict() for each in found], indent=1), encoding="ascii"
        )


if __name__ == "__main__":
    main()

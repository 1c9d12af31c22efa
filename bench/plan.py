"""What is run, at which sizes and in which order."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import servers, workloads
from bench.fixtures import Population, populate
from bench.load_client import Broken
from bench.processes import Cores, ServerProcess, StartFailed, free_port
from bench.protocols import Unexpected
from bench.results import Measured, median
from bench.servers import Server
from bench.workloads import SENDERS, Span

HELD = 200
"""Polls held while deliveries and their latency are measured."""
LATENCY_RATE = 100.0
OFFLINE = range(HELD, 2 * HELD)
"""The users that nobody polls for."""
FILLED = 20
"""Messages that everybody has in the beginning, so that pages are full."""

Task = Callable[[Server], Measured | None]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: int
    span: Span
    held: Sequence[int]
    """Held polls while deliveries are measured."""
    messages: Sequence[int]
    """Messages in the database, in 200 inboxes, while deliveries are measured."""
    inbox: int
    """Messages in the inbox whose first and late pages are compared."""
    parked: Sequence[int]
    """Held polls whose memory is measured."""


FULL = Scale(
    rounds=3,
    span=Span(2.0, 5.0),
    held=(200, 1000, 3000, 10_000),
    messages=(2000, 20_000, 200_000, 1_000_000),
    inbox=1_000_000,
    parked=(1000, 3000, 10_000),
)
QUICK = Scale(
    rounds=1,
    span=Span(0.5, 1.5),
    held=(200, 1000, 2000),
    messages=(2000, 20_000, 100_000),
    inbox=110_000,
    parked=(500, 1000, 2000),
)

LATE_PAGE = 10_000

BASIC = ("deliver", "latency", "read", "send")
PEERS = ("nchan", "prosody")
WORKLOADS = ("ceiling", *BASIC, "held", "messages", "pages", "park")


class Bench:
    """One benchmark: measures what is asked for, side by side, and keeps what it found."""

    def __init__(
        self,
        folder: Path,
        db: str,
        scale: Scale,
        cores: Cores,
        *,
        workers: int = 1,
        peers: Sequence[str] = PEERS,
        say: Callable[[str], None] = print,
    ) -> None:
        self._folder = folder
        self._db = db
        self._scale = scale
        self._say = say
        self._cores = cores
        self._workers = workers
        self._wanted_peers = peers
        self._folders = 0
        self.medians: list[Measured] = []
        self.runs: list[Measured] = []
        self.notes: list[str] = []
        """What a reader of the figures has to know."""
        self.faults: list[str] = []
        """What went wrong: messages lost, answers that were none."""

    @property
    def postgres(self) -> bool:
        """Whether chatd keeps its messages in PostgreSQL; the stock server never does."""
        return not self._db.startswith("sqlite")

    def run(self, wanted: Sequence[str]) -> None:
        """Measure the workloads that are named."""
        self._cores.pin_generator()
        if self._cores.server is None:
            self._note("there is one core only: server and load generator share it")
        if "ceiling" in wanted:
            self._ceiling()
        if set(wanted) & set(BASIC):
            self._basic([name for name in BASIC if name in wanted])
        if "held" in wanted:
            self._held()
        if "messages" in wanted:
            self._messages()
        if "pages" in wanted:
            self._pages()
        if "park" in wanted:
            self._park()

    def _ceiling(self) -> None:
        folder = self._new_folder()
        nginx = servers.nchan(self._cores, folder)
        if nginx is not None:
            process, name = nginx.process, "nginx"
        else:
            port = free_port()
            command = [sys.executable, "-m", "bench.responder", "--port", str(port)]
            root = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
            command = self._cores.pinned(command)
            process = ServerProcess(command, ("127.0.0.1", port), folder, root)
            name = "responder"
        try:
            self._keep(replace(workloads.ceiling(process, self._scale.span), server=name))
        finally:
            process.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def _basic(self, names: Sequence[str]) -> None:
        span = self._scale.span
        tasks: dict[str, Task] = {
            "deliver": lambda server: workloads.deliver(server, HELD, span),
            "latency": lambda server: workloads.deliver(server, HELD, span, LATENCY_RATE),
            "read": lambda server: workloads.read(server, span),
            "send": lambda server: workloads.send(server, OFFLINE, span),
        }
        with self._ours(2 * HELD, [FILLED]) as running:
            with self._peers(2 * HELD) as peers:
                for name in names:
                    self._side_by_side(name, running + peers, tasks[name])

    def _held(self) -> None:
        most = max(self._scale.held)
        span = self._scale.span
        with self._ours(most, [FILLED] * HELD + [0]) as running, self._peers(0) as peers:
            for held in self._scale.held:
                self._side_by_side(
                    "held",
                    running + peers,
                    lambda server, held=held: workloads.deliver(server, held, span),  # type: ignore[misc]
                    at=held,
                )

    def _messages(self) -> None:
        for count in self._scale.messages:
            with self._ours(HELD, [count // HELD]) as running:
                self._side_by_side(
                    "messages",
                    running,
                    lambda server: workloads.deliver(server, HELD, self._scale.span),
                    at=count,
                )

    def _pages(self) -> None:
        span = self._scale.span
        with self._ours(2, [self._scale.inbox, FILLED]) as running:
            for page in (1, 100, LATE_PAGE):
                self._side_by_side(
                    "page",
                    running,
                    lambda server, page=page: workloads.read(server, span, page=page),  # type: ignore[misc]
                    at=page,
                )
            self._side_by_side(
                "small inbox", running, lambda server: workloads.read(server, span, user=1), at=1
            )

    def _park(self) -> None:
        span = self._scale.span
        for held in self._scale.parked:
            # Each in a fresh process: memory that was used once is not given back.
            with self._ours(held, [0]) as running, self._peers(0) as peers:
                self._side_by_side(
                    "park",
                    running + peers,
                    lambda server, held=held: workloads.park(server, held, span.counted),  # type: ignore[misc]
                    at=held,
                    rounds=1,
                )

    def _side_by_side(
        self, name: str, running: Sequence[Server], task: Task, *, at: int = 0, rounds: int = 0
    ) -> None:
        """The same task for each server in turn, several times over."""
        found: dict[str, list[Measured]] = {}
        for _ in range(rounds or self._scale.rounds):
            for server in running:
                try:
                    measured = task(server)
                except (Broken, Unexpected, OSError) as wrong:
                    self._fault(f"{name} at {server.name}: {wrong}")
                    continue
                if measured is not None:
                    measured = replace(measured, workload=name, at=at or measured.at)
                    self.runs.append(measured)
                    found.setdefault(server.name, []).append(measured)
        for runs in found.values():
            self._keep(median(runs))

    def _keep(self, measured: Measured) -> None:
        self.medians.append(measured)
        figures = measured.figures
        shown = [
            f"{key} {figures[key]:,.2f}"
            for key in ("rate", "p50", "p99", "kilobytes", "cpu_idle", "cpu_server", "cpu_others")
            if key in figures
        ]
        self._say(f"{measured.workload:12} {measured.at:>8} {measured.server:9} {', '.join(shown)}")
        if not measured.flawless:
            self._fault(f"{measured.workload} at {measured.server}: {figures}")

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        self._say(text)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._say(text)

    @contextlib.contextmanager
    def _ours(self, users: int, messages: Sequence[int]) -> Iterator[list[Server]]:
        """chatd and the stock server over databases with the same content."""
        folder = self._new_folder()
        other = self._new_folder()
        stock_db = f"sqlite:{other / 'stock.db'}"
        chatd_db = self._db if self.postgres else f"sqlite:{folder / 'chatd.db'}"

        def filled(db: str, path: Path) -> Population:
            populate(db, path, users=users, senders=2 * SENDERS, messages=messages)
            return Population.load(path)

        population = filled(stock_db, other / "who.json")
        ours = population
        if self.postgres:
            ours = filled(chatd_db, folder / "who.json")
        else:
            shutil.copy(other / "stock.db", folder / "chatd.db")
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(shutil.rmtree, other, ignore_errors=True)
            running = []
            server = servers.chatd(self._cores, folder, chatd_db, ours, self._workers)
            stack.callback(server.process.stop)
            running.append(server)
            server = servers.stock(self._cores, other, stock_db, population)
            stack.callback(server.process.stop)
            running.append(server)
            yield running

    @contextlib.contextmanager
    def _peers(self, accounts: int) -> Iterator[list[Server]]:
        """The peers that are installed; those with accounts only if there are to be any."""
        with contextlib.ExitStack() as stack:
            running = []
            for name in self._wanted_peers:
                if name == "prosody" and not accounts:
                    continue
                folder = self._new_folder()
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                try:
                    server = (
                        servers.nchan(self._cores, folder)
                        if name == "nchan"
                        else servers.prosody(self._cores, folder, accounts, 2 * SENDERS)
                    )
                except StartFailed as wrong:
                    self._fault(f"{name}: {wrong}")
                    continue
                if server is None:
                    note = f"{name} is not installed: skipped"
                    if note not in self.notes:
                        self._note(note)
                    continue
                stack.callback(server.process.stop)
                running.append(server)
            yield running

    def _new_folder(self) -> Path:
        self._folders += 1
        folder = self._folder / f"{self._folders:03}"
        folder.mkdir()
        return folder

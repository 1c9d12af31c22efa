"""The plan of a benchmark: which workloads run, at which sizes and in which order."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import deliveries, servers, workloads
from bench.deliveries import SENDERS
from bench.fixtures import Fixtures, populate
from bench.load_client import ConnectionBroken
from bench.processes import Cores, ServerProcess, StartError, free_port
from bench.protocols import UnexpectedResponse
from bench.results import Result, median
from bench.servers import Server
from bench.usage import Timing

HELD = 200
"""Held polls while deliveries and their latency are measured."""
LATENCY_RATE = 100.0
OFFLINE_USERS = range(HELD, 2 * HELD)
"""Users without followers."""
MESSAGES_PER_INBOX = 20
"""Messages in every inbox at the start, so that pages are full."""

Task = Callable[[Server], Result | None]


@dataclass(frozen=True)
class Scale:
    """The size of a benchmark."""

    rounds: int
    timing: Timing
    held: Sequence[int]
    """Numbers of held polls while deliveries are measured."""
    messages: Sequence[int]
    """Numbers of messages, in 200 inboxes, while deliveries are measured."""
    inbox: int
    """Messages in the inbox whose pages are compared: the first, the 100th and `late_page`."""
    late_page: int
    parked: Sequence[int]
    """Numbers of held polls whose memory is measured."""


FULL = Scale(
    rounds=3,
    timing=Timing(2.0, 5.0),
    held=(200, 1000, 3000, 10_000),
    messages=(2000, 20_000, 200_000, 1_000_000),
    inbox=1_000_000,
    late_page=10_000,
    parked=(1000, 3000, 10_000),
)
QUICK = Scale(
    rounds=1,
    timing=Timing(0.5, 1.5),
    held=(200, 1000, 2000),
    messages=(2000, 20_000, 100_000),
    inbox=110_000,
    late_page=10_000,
    parked=(500, 1000, 2000),
)

BASIC = ("deliver", "latency", "read", "send")
PEERS = ("nchan", "prosody")
WORKLOADS = ("ceiling", *BASIC, "held", "messages", "pages", "park")


class Benchmark:
    """Runs workloads at all servers side by side and collects the results."""

    def __init__(
        self,
        folder: Path,
        db: str,
        scale: Scale,
        cores: Cores,
        *,
        workers: int = 1,
        peers: Sequence[str] = PEERS,
        log: Callable[[str], None] = print,
    ) -> None:
        self._folder = folder
        self._db = db
        self._scale = scale
        self._log = log
        self._cores = cores
        self._workers = workers
        self._peer_names = peers
        self._folders = 0
        self.medians: list[Result] = []
        self.runs: list[Result] = []
        self.notes: list[str] = []
        """Remarks that are part of the report."""
        self.errors: list[str] = []
        """Failures: lost messages, unexpected responses, servers that did not start."""

    @property
    def postgres(self) -> bool:
        """Whether chatd uses PostgreSQL; the stock server always uses SQLite."""
        return not self._db.startswith("sqlite")

    def run(self, wanted: Sequence[str]) -> None:
        """Run the named workloads."""
        self._cores.pin_generator()
        if self._cores.server is None:
            self._note("only one core: server and load generator share it")
        if "ceiling" in wanted:
            self._run_ceiling()
        if set(wanted) & set(BASIC):
            self._run_basic([name for name in BASIC if name in wanted])
        if "held" in wanted:
            self._run_held()
        if "messages" in wanted:
            self._run_messages()
        if "pages" in wanted:
            self._run_pages()
        if "park" in wanted:
            self._run_park()

    def _run_ceiling(self) -> None:
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
            self._record(replace(workloads.ceiling(process, self._scale.timing), server=name))
        finally:
            process.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def _run_basic(self, names: Sequence[str]) -> None:
        timing = self._scale.timing
        tasks: dict[str, Task] = {
            "deliver": lambda server: deliveries.deliver(server, HELD, timing),
            "latency": lambda server: deliveries.deliver(server, HELD, timing, LATENCY_RATE),
            "read": lambda server: workloads.read(server, timing),
            "send": lambda server: workloads.send(server, OFFLINE_USERS, timing),
        }
        with self._own_servers(2 * HELD, [MESSAGES_PER_INBOX]) as running:
            with self._peer_servers(2 * HELD) as peers:
                for name in names:
                    self._side_by_side(name, running + peers, tasks[name])

    def _run_held(self) -> None:
        most = max(self._scale.held)
        timing = self._scale.timing
        with (
            self._own_servers(most, [MESSAGES_PER_INBOX] * HELD + [0]) as running,
            self._peer_servers(0) as peers,
        ):
            for held in self._scale.held:
                self._side_by_side(
                    "held",
                    running + peers,
                    lambda server, held=held: deliveries.deliver(server, held, timing),  # type: ignore[misc]
                    at=held,
                )

    def _run_messages(self) -> None:
        for count in self._scale.messages:
            with self._own_servers(HELD, [count // HELD]) as running:
                self._side_by_side(
                    "messages",
                    running,
                    lambda server: deliveries.deliver(server, HELD, self._scale.timing),
                    at=count,
                )

    def _run_pages(self) -> None:
        timing = self._scale.timing
        with self._own_servers(2, [self._scale.inbox, MESSAGES_PER_INBOX]) as running:
            for page in (1, 100, self._scale.late_page):
                self._side_by_side(
                    "page",
                    running,
                    lambda server, page=page: workloads.read(server, timing, page=page),  # type: ignore[misc]
                    at=page,
                )
            self._side_by_side(
                "small inbox", running, lambda server: workloads.read(server, timing, user=1), at=1
            )

    def _run_park(self) -> None:
        timing = self._scale.timing
        for held in self._scale.parked:
            # In new processes each time: used memory is not returned to the system.
            with self._own_servers(held, [0]) as running, self._peer_servers(0) as peers:
                self._side_by_side(
                    "park",
                    running + peers,
                    lambda server, held=held: deliveries.park(server, held, timing.measured),  # type: ignore[misc]
                    at=held,
                    rounds=1,
                )

    def _side_by_side(
        self, name: str, running: Sequence[Server], task: Task, *, at: int = 0, rounds: int = 0
    ) -> None:
        """Run a task at each server in turn, several times."""
        results: dict[str, list[Result]] = {}
        for _ in range(rounds or self._scale.rounds):
            for server in running:
                try:
                    result = task(server)
                except (ConnectionBroken, UnexpectedResponse, OSError) as wrong:
                    self._report_error(f"{name} at {server.name}: {wrong}")
                    continue
                if result is not None:
                    result = replace(result, workload=name, at=at or result.at)
                    self.runs.append(result)
                    results.setdefault(server.name, []).append(result)
        for runs in results.values():
            self._record(median(runs))

    def _record(self, result: Result) -> None:
        self.medians.append(result)
        figures = result.figures
        shown = [
            f"{key} {figures[key]:,.2f}"
            for key in ("rate", "p50", "p99", "kilobytes", "cpu_idle", "cpu_server", "cpu_others")
            if key in figures
        ]
        self._log(f"{result.workload:12} {result.at:>8} {result.server:9} {', '.join(shown)}")
        if not result.ok:
            self._report_error(f"{result.workload} at {result.server}: {figures}")

    def _report_error(self, text: str) -> None:
        self.errors.append(text)
        self._log(text)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._log(text)

    @contextlib.contextmanager
    def _own_servers(self, users: int, messages: Sequence[int]) -> Iterator[list[Server]]:
        """Run chatd and the stock server on databases with the same content."""
        folder = self._new_folder()
        other = self._new_folder()
        stock_db = f"sqlite:{other / 'stock.db'}"
        chatd_db = self._db if self.postgres else f"sqlite:{folder / 'chatd.db'}"

        def filled(db: str, path: Path) -> Fixtures:
            populate(db, path, users=users, senders=2 * SENDERS, messages=messages)
            return Fixtures.load(path)

        fixtures = filled(stock_db, other / "who.json")
        ours = fixtures
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
            server = servers.stock(self._cores, other, stock_db, fixtures)
            stack.callback(server.process.stop)
            running.append(server)
            yield running

    @contextlib.contextmanager
    def _peer_servers(self, accounts: int) -> Iterator[list[Server]]:
        """Run the installed peers; Prosody only if accounts are needed."""
        with contextlib.ExitStack() as stack:
            running = []
            for name in self._peer_names:
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
                except StartError as wrong:
                    self._report_error(f"{name}: {wrong}")
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

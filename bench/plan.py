"""The plan of a benchmark: which workloads run, at which sizes and in which order."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import deliveries, servers, workloads
from bench.load_client import ConnectionBroken
from bench.processes import Cores, ServerProcess, free_port
from bench.protocols import UnexpectedResponse
from bench.results import Result, median
from bench.server_groups import ServerGroups
from bench.servers import Server
from bench.usage import Timing

HELD = 200
"""Held polls, or streams, while deliveries and their latency are measured."""
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
    """Numbers of held polls, and of streams, while deliveries are measured."""
    messages: Sequence[int]
    """Numbers of messages, in 200 inboxes, while deliveries are measured."""
    inbox: int
    """Messages in the inbox whose pages are compared: the first, the 100th and `late_page`."""
    late_page: int
    parked: Sequence[int]
    """Numbers of held polls, and of streams, whose memory is measured."""
    idle: float
    """Seconds for which the CPU usage of streams without traffic is measured."""


FULL = Scale(
    rounds=3,
    timing=Timing(2.0, 5.0),
    held=(200, 1000, 3000, 10_000),
    messages=(2000, 20_000, 200_000, 1_000_000),
    inbox=1_000_000,
    late_page=10_000,
    parked=(1000, 3000, 10_000),
    # Streams have a keep-alive each 15 s.
    idle=15.0,
)
QUICK = Scale(
    rounds=1,
    timing=Timing(0.5, 1.5),
    held=(200, 1000, 2000),
    messages=(2000, 20_000, 100_000),
    inbox=110_000,
    late_page=10_000,
    parked=(500, 1000, 2000),
    idle=1.5,
)

BASIC = ("deliver", "stream", "latency", "read", "send")
HELD_WORKLOADS = ("held", "stream-held")
PARK_WORKLOADS = ("park", "stream-park")
WORKLOADS = ("ceiling", *BASIC, *HELD_WORKLOADS, "messages", "pages", *PARK_WORKLOADS)

PEERS = ("faye", "nchan", "prosody", "centrifuge")
WITHOUT_POLLS = ("centrifuge",)
WITH_ACCOUNTS = ("prosody",)
"""Peers whose users have to log in, which takes too long for thousands."""


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
        self._scale = scale
        self._log = log
        self._cores = cores
        self._servers = ServerGroups(
            folder,
            db,
            cores,
            workers=workers,
            peers=peers,
            report_error=self._report_error,
            note=self._note,
        )
        self.medians: list[Result] = []
        self.runs: list[Result] = []
        self.notes: list[str] = []
        """Remarks that are part of the report."""
        self.errors: list[str] = []
        """Failures: lost messages, unexpected responses, servers that did not start."""

    @property
    def postgres(self) -> bool:
        """Whether chatd uses PostgreSQL; the stock server always uses SQLite."""
        return self._servers.postgres

    def run(self, wanted: Sequence[str]) -> None:
        """Run the named workloads."""
        self._cores.pin_generator()
        if self._cores.server is None:
            self._note("only one core: server and load generator share it")
        if "ceiling" in wanted:
            self._run_ceiling()
        for names, run in (
            (BASIC, self._run_basic),
            (HELD_WORKLOADS, self._run_held),
            (("messages",), self._run_messages),
            (("pages",), self._run_pages),
            (PARK_WORKLOADS, self._run_park),
        ):
            chosen = [name for name in names if name in wanted]
            if chosen:
                run(chosen)

    def _run_ceiling(self) -> None:
        folder = self._servers.new_folder()
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
            "stream": lambda server: deliveries.stream(server, HELD, timing),
            "latency": lambda server: deliveries.deliver(server, HELD, timing, LATENCY_RATE),
            "read": lambda server: workloads.read(server, timing),
            "send": lambda server: workloads.send(server, OFFLINE_USERS, timing),
        }
        with (
            self._servers.own(2 * HELD, [MESSAGES_PER_INBOX]) as running,
            self._servers.peers(_peers(names), 2 * HELD) as peers,
        ):
            for name in names:
                self._side_by_side(name, running + peers, tasks[name])

    def _run_held(self, names: Sequence[str]) -> None:
        most = max(self._scale.held)
        timing = self._scale.timing
        measure: dict[str, Callable[..., Result | None]] = {
            "held": deliveries.deliver,
            "stream-held": deliveries.stream,
        }
        with (
            self._servers.own(most, [MESSAGES_PER_INBOX] * HELD + [0]) as running,
            self._servers.peers(_peers(names, unlimited=True)) as peers,
        ):
            for name in names:
                for held in self._scale.held:
                    task = partial(measure[name], held=held, timing=timing)
                    self._side_by_side(name, running + peers, task, at=held)

    def _run_messages(self, names: Sequence[str]) -> None:
        for count in self._scale.messages:
            with self._servers.own(HELD, [count // HELD]) as running:
                self._side_by_side(
                    "messages",
                    running,
                    lambda server: deliveries.deliver(server, HELD, self._scale.timing),
                    at=count,
                )

    def _run_pages(self, names: Sequence[str]) -> None:
        timing = self._scale.timing
        with self._servers.own(2, [self._scale.inbox, MESSAGES_PER_INBOX]) as running:
            for page in (1, 100, self._scale.late_page):
                task = partial(workloads.read, timing=timing, page=page)
                self._side_by_side("page", running, task, at=page)
            task = partial(workloads.read, timing=timing, user=1)
            self._side_by_side("small inbox", running, task, at=1)

    def _run_park(self, names: Sequence[str]) -> None:
        measure: dict[str, Callable[..., Result | None]] = {
            "park": partial(deliveries.park, seconds=self._scale.timing.measured),
            "stream-park": partial(deliveries.park_streams, seconds=self._scale.idle),
        }
        for name in names:
            for held in self._scale.parked:
                # In new processes each time: used memory is not returned to the system.
                with (
                    self._servers.own(held, [0]) as running,
                    self._servers.peers(_peers([name], unlimited=True)) as peers,
                ):
                    task = partial(measure[name], held=held)
                    self._side_by_side(name, running + peers, task, at=held, rounds=1)

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
            for key in (
                *("rate", "p50", "p99", "kilobytes", "cpu_idle"),
                *("cpu_server", "cpu_us", "cpu_generator", "cpu_others"),
            )
            if key in figures
        ]
        self._log(f"{result.workload:12} {result.at:>8} {result.server:10} {', '.join(shown)}")
        if not result.ok:
            self._report_error(f"{result.workload} at {result.server}: {figures}")

    def _report_error(self, text: str) -> None:
        self.errors.append(text)
        self._log(text)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self._log(text)


def _peers(names: Sequence[str], *, unlimited: bool = False) -> list[str]:
    """The peers that have a part in these workloads; `unlimited` are those without accounts."""
    streams = any(name.startswith("stream") for name in names)
    return [
        peer
        for peer in PEERS
        if (streams or peer not in WITHOUT_POLLS) and not (unlimited and peer in WITH_ACCOUNTS)
    ]

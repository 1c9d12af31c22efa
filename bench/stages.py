"""`python -m bench.stages`: where the CPU time of a delivery goes.

Runs the workloads deliver and stream twice on chatd with SQLite: once to measure the CPU time of a
delivery, and once under the sampling profiler py-spy. Its samples of the main thread, kernel time
included, are counted by stage: a sample belongs to the stage of its innermost function that has
one. The other threads store messages; their CPU time is known from the system.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import deliveries
from bench.plan import HELD, MESSAGES_PER_INBOX
from bench.processes import Cores
from bench.publish import ROOT
from bench.results import Result
from bench.server_groups import ServerGroups
from bench.servers import Server
from bench.usage import Timing

TIMING: Final = Timing(1.0, 6.0)
SAMPLES_PER_SECOND: Final = 250

STAGES: Final = {
    "receive from the socket": ("twisted/internet/tcp.py",),
    "read HTTP requests": ("chatd/http/",),
    "understand calls, authenticate": (
        "chatd/api/fast_path.py",
        "chatd/api/parameters.py",
        "chatd/api/bodies.py",
        "chatd/api/chats_query.py",
        "chatd/domain/accounts.py",
        "chatd/domain/sessions.py",
        "chatd/domain/rate_limits.py",
    ),
    "collect sends in batches": ("chatd/domain/batch.py", "chatd/domain/chats.py"),
    "hold and wake": (
        "chatd/domain/",
        "chatd/bus/",
        "chatd/store/inbox_cache.py",
        "chatd/runtime/deadlines.py",
    ),
    "render responses, count": ("chatd/api/", "chatd/metrics.py", "prometheus_client/"),
    "send to the socket": ("chatd/http/eager_write.py",),
    "reactor, hand-over to the writer thread": ("chatd/runtime/", "twisted/"),
    "other": (),
}
"""Beginnings of the paths of a stage's code; of several that match, the longest counts."""

_BY_PATH: Final = sorted(
    ((path, stage) for stage, paths in STAGES.items() for path in paths),
    key=lambda each: -len(each[0]),
)


_OTHER_THREAD: Final = re.compile(r"[^;]*\(threading\.py:")


def stage_of(stack: str) -> str:
    """The stage of a stack in py-spy's raw format: ``function (path:line);...``, innermost last."""
    for frame in reversed(stack.split(";")):
        path = frame.rpartition("(")[2]
        for beginning, stage in _BY_PATH:
            if path.startswith(beginning):
                return stage
    return "other"


def shares(profile: Iterable[str]) -> dict[str, float]:
    """The share of each stage in the samples of the main thread, from lines in the raw format."""
    samples: Counter[str] = Counter()
    for line in profile:
        stack, _, count = line.rpartition(" ")
        if not _OTHER_THREAD.match(stack):
            samples[stage_of(stack)] += int(count)
    total = samples.total()
    return {stage: samples[stage] / total for stage in STAGES} if total else {}


@dataclass(frozen=True)
class Column:
    """CPU microseconds a delivery of a workload, and the shares of the main thread's stages."""

    main_thread: float
    other_threads: float
    shares: Mapping[str, float]


def table(columns: Mapping[str, Column]) -> str:
    """A Markdown table of CPU microseconds a delivery."""
    lines = [
        f"| CPU µs a delivery | {' | '.join(columns)} |",
        f"| --- | {' | '.join('---:' for _ in columns)} |",
    ]
    rows = {
        stage: [each.main_thread * each.shares[stage] for each in columns.values()]
        for stage in STAGES
    }
    rows["store and commit (writer thread)"] = [each.other_threads for each in columns.values()]
    rows["all"] = [each.main_thread + each.other_threads for each in columns.values()]
    for name, microseconds in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{each:.0f}' for each in microseconds)} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    output = ROOT / "build"
    output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stages-", dir=output) as name:
        folder = Path(name).resolve()
        cores = Cores.of_this_machine()
        groups = ServerGroups(
            folder, "sqlite", cores, workers=1, peers=(), report_error=print, note=print
        )
        cores.pin_generator()
        columns = {}
        with groups.own(2 * HELD, [MESSAGES_PER_INBOX]) as (chatd, _):
            for workload in (deliveries.deliver, deliveries.stream):
                main, total = chatd.process.main_thread_cpu_seconds, chatd.process.cpu_seconds
                measured = _checked(workload(chatd, HELD, TIMING))
                main = chatd.process.main_thread_cpu_seconds - main
                total = chatd.process.cpu_seconds - total
                cpu_us = measured.figures["cpu_us"]
                columns[measured.workload] = Column(
                    cpu_us * main / total,
                    cpu_us * (1 - main / total),
                    _profile(chatd, folder / "profile", workload),
                )
    print(table(columns))
    return 0


def _profile(
    server: Server, path: Path, workload: Callable[[Server, int, Timing], Result | None]
) -> dict[str, float]:
    seconds = TIMING.warmup + TIMING.measured
    command = [
        str(Path(sys.executable).with_name("py-spy")),
        *("record", "--pid", str(server.process.pid), "--format", "raw", "--output", str(path)),
        *("--rate", str(SAMPLES_PER_SECOND), "--duration", str(int(seconds))),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as spy:
        _checked(workload(server, HELD, TIMING))
        output, _ = spy.communicate()
    if spy.returncode:
        raise SystemExit(f"py-spy failed: {output.decode()}")
    with path.open() as lines:
        return shares(lines)


def _checked(result: Result | None) -> Result:
    if result is None or not result.ok:
        raise SystemExit(f"the workload failed: {result}")
    return result


if __name__ == "__main__":
    sys.exit(main())

"""`Soak`: rounds on all deployments side by side, and what was measured and found."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from tests.soak.deployment import Deployment, Node, deployed
from tests.soak.faults import Faults
from tests.soak.rounds import Round
from tests.soak.usage import Usage, count_descriptors, report

SETTLE_SECONDS: Final = 15.0
SPARE_DESCRIPTORS: Final = 4
"""Connections to the database, of which there may be some more at a time."""


class Settings(NamedTuple):
    """How long a soak runs, in rounds of how many seconds, and how many sends each second.

    `rate` and `users` are those of each deployment; each user has two devices.

    The history of a round in which nothing was wrong is removed unless `keep`.
    """

    output: Path
    seconds: float
    round_seconds: float = 60.0
    sample_seconds: float = 5.0
    rate: float = 40.0
    users: int = 4
    seed: int = 0
    keep: bool = False


class Soak:
    """Runs, and has the result in `figures`, `faults`, `usage` and `problems`."""

    def __init__(
        self, reactor: Any, settings: Settings, deployments: list[Deployment],
        log: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._reactor = reactor
        self._settings = settings
        self._deployments = deployments
        self._log = log
        self._began = time.monotonic()
        self._loads: list[float] = []
        self.figures: dict[str, Counter[str]] = {each.name: Counter() for each in deployments}
        self.faults: dict[str, Counter[str]] = {}
        self.usage = [Usage(node) for each in deployments for node in each.nodes]
        self.problems: list[str] = []

    async def run(self) -> None:
        """Run all of it."""
        sampling = LoopingCall(self._sample)
        sampling.clock = self._reactor
        async with AsyncExitStack() as stack:
            for each in self._deployments:
                dice = random.Random(f"{self._settings.seed} {each.name}")
                await stack.enter_async_context(deployed(self._reactor, each, dice))
            sampled = sampling.start(self._settings.sample_seconds)
            try:
                await gatherResults(
                    [Deferred.fromCoroutine(self._soak(each)) for each in self._deployments],
                    consumeErrors=True,
                )
            finally:
                sampling.stop()
                await sampled
        for each in self._deployments:
            self.problems += each.problems

    def _sample(self) -> None:
        self._loads.append(os.getloadavg()[0])
        for each in self.usage:
            each.sample(time.monotonic() - self._began)

    async def _soak(self, deployment: Deployment) -> None:
        dice = random.Random(f"{self._settings.seed} {deployment.name}")
        faults = Faults(self._reactor, deployment, dice)
        self.faults[deployment.name] = faults.done
        ends = self._began + self._settings.seconds
        idle = {node.name: count_descriptors(node.pid) for node in deployment.nodes}
        number = 0
        while number == 0 or time.monotonic() < ends:
            number += 1
            path = self._settings.output / f"history-{deployment.name}-{number:04}.jsonl"
            seconds = min(self._settings.round_seconds, max(1.0, ends - time.monotonic()))
            current = Round(
                self._reactor,
                deployment,
                faults,
                dice,
                path,
                rate=self._settings.rate,
                users=self._settings.users,
            )
            try:
                figures, problems = await current.run(seconds)
                for node in deployment.nodes:
                    if not node.is_restarted:
                        problems += await self._settled(node, idle[node.name])
            except CancelledError:
                return
            except Exception as error:
                # Such as a daemon that does not start: the other deployments go on.
                self.problems.append(f"{deployment.name}: broken off: {error!r}")
                self._log(traceback.format_exc())
                return
            self.figures[deployment.name].update(figures)
            self.problems += problems
            told = ", ".join(f"{name} {count}" for name, count in figures.items())
            self._log(f"{deployment.name} round {number}: {told}; {len(problems)} problems")
            for problem in problems:
                self._log(f"  {problem}")
            if not problems and not self._settings.keep:
                path.unlink()

    async def _settled(self, node: Node, idle: int) -> list[str]:
        """Wait until a daemon without clients has no more descriptors than before the first."""
        ends = time.monotonic() + SETTLE_SECONDS
        while (count := count_descriptors(node.pid)) > idle + SPARE_DESCRIPTORS:
            if time.monotonic() >= ends:
                return [f"{node.name}: left open: {count} descriptors, at first {idle}"]
            await deferLater(self._reactor, 0.2)
        return []

    def summary(self) -> str:
        """The result, for people."""
        lines = []
        for name, figures in self.figures.items():
            told = ", ".join(f"{key} {count:,}" for key, count in figures.items())
            faults = ", ".join(f"{key} {count}" for key, count in self.faults[name].items())
            lines += [f"{name}: {told}", f"  faults: {faults}"]
        lines += map(report, self.usage)
        kinds = Counter(problem.partition(": ")[2].partition(":")[0] for problem in self.problems)
        named = ("lost", "doubled", "skipped", "divergent", "stale", "missed")
        lines.append(", ".join(f"{kind} {kinds[kind]}" for kind in named))
        lines.append(f"problems in all: {len(self.problems)}")
        if self._loads:
            lines.append(
                f"load of the machine: {sum(self._loads) / len(self._loads):.1f} on average,"
                f" {max(self._loads):.1f} at most, on {os.cpu_count()} cores"
            )
        return "\n".join(lines)

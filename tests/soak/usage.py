"""Memory and descriptors of daemons over time: samples, and how fast they grow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import resident_bytes
from tests.soak.deployment import Node

MIB: Final = 1 << 20


class Sample(NamedTuple):
    """What a process used `seconds` after the soak began."""

    seconds: float
    pid: int
    mebibytes: float
    descriptors: int


class Usage:
    """The samples of one daemon, in all its lives."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.samples: list[Sample] = []

    @property
    def name(self) -> str:
        """The name of the daemon."""
        return self._node.name

    def sample(self, seconds: float) -> None:
        """Measure it now, unless it is down."""
        if not self._node.is_up:
            return
        pid = self._node.pid
        try:
            memory, descriptors = resident_bytes(pid) / MIB, count_descriptors(pid)
        except OSError:
            # It is just being killed.
            return
        self.samples.append(Sample(seconds, pid, memory, descriptors))

    def longest_life(self) -> list[Sample]:
        """The samples of the process that lived longest."""
        lives: dict[int, list[Sample]] = {}
        for each in self.samples:
            lives.setdefault(each.pid, []).append(each)
        return max(lives.values(), key=lambda life: life[-1].seconds - life[0].seconds, default=[])


def count_descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(Path(f"/proc/{pid}/fd")))


def hourly_slope(points: Iterable[tuple[float, float]]) -> float | None:
    """Growth an hour of values at seconds, by least squares; None if that needs more points."""
    found = list(points)
    if len(found) < 2:
        return None
    middle = sum(at for at, _ in found) / len(found)
    spread = sum((at - middle) ** 2 for at, _ in found)
    if not spread:
        return None
    return 3600 * sum((at - middle) * value for at, value in found) / spread


def later_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    """What was measured after the caches had filled: the later half."""
    return samples[len(samples) // 2 :]


def report(usage: Usage) -> str:
    """A line about the longest life of a daemon."""
    life = usage.longest_life()
    if not life:
        return f"{usage.name}: not measured"
    later = later_half(life)
    memory = hourly_slope((each.seconds, each.mebibytes) for each in later)
    descriptors = hourly_slope((each.seconds, each.descriptors) for each in later)
    told = (
        "too short for a slope"
        if memory is None or descriptors is None
        else f"slope of the later half {memory:+.1f} MiB/h, {descriptors:+.1f} descriptors/h"
    )
    return (
        f"{usage.name}: {life[-1].seconds - life[0].seconds:.0f} s in one process,"
        f" {life[0].mebibytes:.1f} to {life[-1].mebibytes:.1f} MiB"
        f" (at most {max(each.mebibytes for each in life):.1f}),"
        f" {life[0].descriptors} to {life[-1].descriptors} descriptors, {told}"
    )

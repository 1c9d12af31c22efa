"""CPU usage and rates of a measurement."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bench.load_client import now
from bench.processes import ServerProcess, machine_busy_seconds

DRAIN_SECONDS = 10.0
"""How long responses and messages may take to arrive after a measurement."""


@dataclass(frozen=True)
class Timing:
    """Seconds that a workload runs before and during the measurement."""

    warmup: float
    measured: float


class CPUUsage:
    """CPU usage of the server, the generator and everything else, from construction on."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self._began = now()
        self._server = process.cpu_seconds
        self._own = _own_cpu()
        self._machine = machine_busy_seconds()

    def figures(self) -> dict[str, float]:
        """CPU usage in percent of a core."""
        seconds = now() - self._began
        server = self._process.cpu_seconds - self._server
        own = _own_cpu() - self._own
        others = machine_busy_seconds() - self._machine - server - own
        return {
            "cpu_server": 100 * server / seconds,
            "cpu_generator": 100 * own / seconds,
            "cpu_others": max(0.0, 100 * others / seconds),
        }


def throughput(count: int, seconds: float, usage: dict[str, float]) -> dict[str, float]:
    """Rates per second and per CPU second of the server, and its CPU microseconds for each.

    Other programs affect what is relative to CPU time less.
    """
    rate = count / seconds
    share = usage["cpu_server"] / 100
    if not share or not rate:
        return {"rate": rate}
    return {"rate": rate, "per_cpu": rate / share, "cpu_us": 1e6 * share / rate}


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system

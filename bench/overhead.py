"""CPU time of chatd for a request, a held poll and a streamed message, compared with twisted.web.

Both run in this process on transports in memory, without sockets or disk. Rounds alternate and the
fastest of each counts, so that other programs hardly affect the ratio.

    python -m bench.overhead
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from bench import overhead_deliveries, overhead_request
from bench.memory_connection import Turn

ROUNDS = 7
TURNS = 200

CASES: dict[str, tuple[Callable[[], Turn], Callable[[], Turn]]] = {
    "request": (overhead_request.ours, overhead_request.stock),
    "poll": (
        lambda: overhead_deliveries.poll(overhead_deliveries.ours),
        lambda: overhead_deliveries.poll(overhead_deliveries.stock),
    ),
    "stream": (
        lambda: overhead_deliveries.stream(overhead_deliveries.ours),
        lambda: overhead_deliveries.stream(overhead_deliveries.stock),
    ),
}


def seconds(turn: Turn) -> float:
    """CPU time of `TURNS` turns."""
    began = time.process_time()
    for _ in range(TURNS):
        turn()
    return time.process_time() - began


def best_times(ours: Turn, stock: Turn) -> tuple[float, float]:
    """CPU seconds of a turn of each, of the fastest round."""
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for number, turn in enumerate((ours, stock)):
            gc.collect()
            best[number] = min(best[number], seconds(turn))
    return best[0] / TURNS, best[1] / TURNS


def main() -> None:
    """Print, for each case, the ratio and both times in microseconds."""
    for name, (ours, stock) in CASES.items():
        mine, theirs = best_times(ours(), stock())
        print(f"{name} {theirs / mine:.2f} {1e6 * mine:.1f} {1e6 * theirs:.1f}")


if __name__ == "__main__":
    main()

"""CPU time of chatd for a request, a held poll and a streamed message, compared with twisted.web.

Both run in this process on transports in memory, without sockets or disk. They alternate, and
the fastest of many short windows counts, so that other programs hardly affect the ratio.

    python -m bench.overhead
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from bench import overhead_deliveries, overhead_request
from bench.memory_connection import Turn

ROUNDS = 10
WARM_UP = 25
WINDOWS = 20
TURNS = 10
"""In each round of a case, so many turns that are not measured, and windows of so many turns."""

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
    """CPU time of `TURNS` turns, in the fastest of the windows of a round."""
    for _ in range(WARM_UP):
        turn()
    best = float("inf")
    for _ in range(WINDOWS):
        began = time.process_time()
        for _ in range(TURNS):
            turn()
        best = min(best, time.process_time() - began)
    return best


def best_times() -> dict[str, tuple[float, float]]:
    """For each case, the CPU seconds of a turn by chatd and by the stock server."""
    turns = {name: (ours(), stock()) for name, (ours, stock) in CASES.items()}
    best = {name: [float("inf")] * 2 for name in turns}
    gc.collect()
    # What exists now would be traversed before every measurement.
    gc.freeze()
    for _ in range(ROUNDS):
        for name, pair in turns.items():
            for number, turn in enumerate(pair):
                gc.collect()
                best[name][number] = min(best[name][number], seconds(turn))
    return {name: (mine / TURNS, theirs / TURNS) for name, (mine, theirs) in best.items()}


def main() -> None:
    """Print, for each case, the ratio and both times in microseconds."""
    for name, (mine, theirs) in best_times().items():
        print(f"{name} {theirs / mine:.2f} {1e6 * mine:.1f} {1e6 * theirs:.1f}")


if __name__ == "__main__":
    main()

"""A plugin of coverage.py: what a process has run is saved before it ends itself by a signal.

twistd that was sent SIGTERM stops in order and then ends by that same signal, as a well-behaved
program does. Nothing that Python runs at exit runs then, coverage's saving of data included.
"""

import os
from typing import Any

from coverage import Coverage


def coverage_init(registry: object, options: dict[str, Any]) -> None:
    """Called by coverage.py in each process that it measures, before it begins."""
    del registry, options
    kill = os.kill

    def save_and_kill(pid: int, signum: int) -> None:
        measuring = Coverage.current()
        if pid == os.getpid() and signum and measuring is not None:
            measuring.save()
        kill(pid, signum)

    os.kill = save_and_kill

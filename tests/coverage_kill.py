"""Plugin for coverage.py that saves the data of a process before it kills itself with a signal.

After an orderly stop caused by SIGTERM, twistd ends by sending itself the same signal, as a
well-behaved program does. Exit handlers, including that of coverage.py, do not run then.
"""

import os
from typing import Any

from coverage import Coverage


def coverage_init(registry: object, options: dict[str, Any]) -> None:
    """Entry point, called by coverage.py in each process that it measures."""
    del registry, options
    kill = os.kill

    def save_and_kill(pid: int, signum: int) -> None:
        measuring = Coverage.current()
        if pid == os.getpid() and signum and measuring is not None:
            measuring.save()
        kill(pid, signum)

    os.kill = save_and_kill

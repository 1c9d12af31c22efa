"""`chatd serve`: the daemon in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def serve(options: Sequence[str]) -> NoReturn:
    """Run `twistd --nodaemon chatd` with these options in this process."""
    from twisted.scripts.twistd import run

    sys.argv = ["chatd serve", "--nodaemon", "--pidfile=", "chatd", *options]
    run()
    raise SystemExit

"""`chatd serve`: the daemon in the foreground; `chatd check-config`: what it would do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def serve(options: Sequence[str]) -> NoReturn:
    """Run `twistd --nodaemon chatd` with these options in this process."""
    _run("chatd serve", options)


def check_config(options: Sequence[str]) -> NoReturn:
    """Run `twistd chatd --check` with these options in this process."""
    _run("chatd check-config", ["--check", *options])


def _run(name: str, options: Sequence[str]) -> NoReturn:
    from twisted.scripts.twistd import run

    sys.argv = [name, "--nodaemon", "--pidfile=", "chatd", *options]
    run()
    raise SystemExit

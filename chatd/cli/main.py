"""The entry point of the `chatd` command."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from chatd.admin.parser import COMMANDS as ADMIN_COMMANDS
from chatd.cli import serve
from chatd.cli.parser import parser

NICE: Final = 19
"""By how much the priority of `chatd db` is lower."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 on success, 1 with a one-line message on failure."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Their options are those of the daemon.
    daemon = {"serve": serve.serve, "check-config": serve.check_config}
    if given[:1] and given[0] in daemon:
        daemon[given[0]](given[1:])
    top = parser()
    args = top.parse_args(given)
    if args.command in daemon:
        # After an option of `chatd` itself.
        daemon[args.command]([])
    if args.command == "completion":
        from chatd.cli.completion import completion_script

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(completion_script(args.shell))
        raise SystemExit
    if args.command == "health":
        from chatd.cli.health import health

        health(args.url, ready=args.ready)
    if args.command in ADMIN_COMMANDS:
        if args.command == "db":
            # Daemons on the same machine come first, also while this imports what it needs. A unit
            # that confines the command may forbid it.
            with contextlib.suppress(PermissionError):
                os.nice(NICE)
        from chatd.admin import runner

        runner.run(args)
    # These imports take longer than all of the above; most of their objects live until the exit,
    # so that collecting garbage, then and at the exit, would be a third of the work in vain.
    gc.disable()
    from chatd.cli.runner import run

    gc.enable()
    atexit.register(gc.freeze)
    run(args)

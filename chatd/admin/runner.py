"""Runs a command for administrators, and exits with its status."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from chatd.admin import database, export, tokens, users
from chatd.admin.errors import FAILED, AdminError
from chatd.config import ConfigError, Settings, load
from chatd.maintenance import MaintenanceError

Command = Callable[[argparse.Namespace, Settings, Any], Coroutine[Deferred[Any], Any, None]]

COMMANDS: Final[Mapping[tuple[str, str], Command]] = {
    ("user", "add"): users.add,
    ("user", "list"): users.list_all,
    ("user", "show"): users.show,
    ("user", "passwd"): users.passwd,
    ("user", "disable"): users.disable,
    ("user", "enable"): users.enable,
    ("user", "delete"): users.delete,
    ("token", "list"): tokens.list_all,
    ("token", "revoke"): tokens.revoke,
    ("db", "status"): database.status,
    ("db", "upgrade"): database.upgrade,
    ("db", "backup"): database.backup,
    ("db", "restore"): database.restore,
    ("db", "check"): database.check,
    ("db", "vacuum"): database.vacuum,
    ("db", "shard"): database.shard,
    ("export", "user"): export.export,
}
INTERRUPTED: Final = 130


def run(args: argparse.Namespace) -> NoReturn:
    """Run the command and exit: 0 on success, otherwise with one line on standard error.

    2 is for wrong options and settings; for others see `chatd.admin.errors`.
    """
    given = {name: value for name in ("config", "db") if (value := getattr(args, name))}
    try:
        settings, _ = load(given, os.environ)
    except ConfigError as wrong:
        _exit(str(wrong), 2)
    escape_output()
    # What has begun is undone, as after Ctrl-C, until the reactor runs, which has its own handler.
    signal.signal(signal.SIGTERM, terminate)
    react(lambda reactor: Deferred.fromCoroutine(_run(args, settings, reactor)))
    raise AssertionError("react exits")


async def _run(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    try:
        await COMMANDS[args.command, args.action](args, settings, reactor)
        sys.stdout.flush()
    except ConfigError as wrong:
        _exit(str(wrong), 2)
    except AdminError as error:
        _exit(_with_hint(str(error), args), error.status)
    except MaintenanceError as error:
        _exit(_with_hint(str(error), args), FAILED)
    except EOFError:
        _exit("no input", FAILED)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader has exited
        _drop_output()
        raise SystemExit from None
    except OSError as error:  # such as a full disk that the output is written to
        _drop_output()
        _exit(str(error), FAILED)


def terminate(number: int, _: FrameType | None) -> NoReturn:
    """End the command with the status that shells report for the signal."""
    raise SystemExit(128 + number)


def escape_output() -> None:
    """Escape what the locale lacks: an email address may have any character."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # It fails if the descriptor was made another one since, as in a process that was forked.
        with contextlib.suppress(OSError):
            sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Let what could not be written not fail again when it is flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _with_hint(text: str, args: argparse.Namespace) -> str:
    """An error; with a hint if the daemon's database may be another one than was looked for."""
    named = args.config or args.db or {"CHATD_CONFIG", "CHATD_DB"} & set(os.environ)
    if named or not text.startswith("there is no database"):
        return text
    return f"{text}; or name the daemon's settings by --config FILE or CHATD_CONFIG"


def _exit(text: str, status: int) -> NoReturn:
    sys.stderr.write(f"chatd: {text}\n")
    raise SystemExit(status)

"""Runs a command of `chatd` that talks to a service, and exits with its status."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react

from chatd.cli import accounts, chat, conversations, demo, doctor, messages, sessions
from chatd.cli.errors import CommandError
from chatd.cli.printing import escape_controls
from chatd.cli.session import Session, SessionFile
from chatd.client import APIError, ChatError, Unreachable

Command = Callable[[argparse.Namespace, Session], Coroutine[Deferred[Any], Any, None]]

COMMANDS: Final[Mapping[str, Command]] = {
    "register": accounts.register,
    "login": accounts.log_in,
    "logout": accounts.log_out,
    "whoami": accounts.whoami,
    "passwd": accounts.passwd,
    "sessions": sessions.sessions,
    "send": messages.send,
    "conversations": conversations.conversations,
    "tail": messages.tail,
    "chat": chat.chat,
    "demo": demo.demo,
    "doctor": doctor.doctor,
}
INTERRUPTED: Final = 130
"""The exit status of a command ended by Ctrl-C, as shells report it."""


def run(args: argparse.Namespace) -> NoReturn:
    """Run the command and exit: 0 on success, 1 with a one-line message on failure."""
    from twisted.internet import reactor

    runner = CommandRunner(args, SessionFile(args.session))
    # Nothing is scheduled yet. By default it would be by the wall clock, which may be set.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    try:
        react(runner.start)
    finally:
        if runner.interrupted:
            raise SystemExit(INTERRUPTED)
    raise AssertionError("react exits")


class CommandRunner:
    """Runs one command under the reactor and lets it clean up when interrupted."""

    def __init__(self, args: argparse.Namespace, session: SessionFile) -> None:
        self._args = args
        self._session = session
        self.interrupted = False

    def start(self, reactor: Any) -> Deferred[None]:
        """Start the command; the Deferred fires when it has finished or been interrupted."""
        work = Deferred.fromCoroutine(_run(self._args, Session(reactor, self._session)))
        reactor.addSystemEventTrigger("before", "shutdown", self._on_shutdown, work)
        return work

    def _on_shutdown(self, work: Deferred[None]) -> Deferred[None] | None:
        if work.called:
            return None
        self.interrupted = True
        finished: Deferred[None] = Deferred()

        def on_finished(result: object) -> object:
            finished.callback(None)
            return result

        # react would stop the reactor without waiting for the command to clean up.
        work.addBoth(on_finished)
        work.cancel()
        return finished


async def _run(args: argparse.Namespace, session: Session) -> None:
    """Run a command; raises SystemExit with a message if it fails."""
    try:
        await COMMANDS[args.command](args, session)
    except CommandError as error:
        raise _failed(str(error)) from None
    except CancelledError:
        # Interrupted: `CommandRunner` sets the exit status.
        return
    except KeyboardInterrupt:
        # At a prompt, before the reactor has taken over the signals, or in a chat.
        raise SystemExit(INTERRUPTED) from None
    except EOFError:
        raise SystemExit("chatd: no input") from None
    except APIError as error:
        if error.code == "unauthorized" and args.command not in ("login", "register"):
            raise SystemExit("chatd: the login has expired; run chatd login NAME") from None
        raise _failed(error.detail) from None
    except Unreachable as error:
        raise _failed(f"cannot reach {session.server}: {error}") from None
    except ChatError as error:
        raise _failed(str(error)) from None
    except BrokenPipeError:
        # The reader has exited (`chatd tail | head`); flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit from None
    finally:
        await session.close()


def _failed(reason: str) -> SystemExit:
    # It may be what the service says, whichever that is.
    return SystemExit(f"chatd: {escape_controls(reason)}")

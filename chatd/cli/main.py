"""Arguments of the `chatd` command, and what runs them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react

from chatd import __version__
from chatd.cli import accounts, chat, demo, messages, serve
from chatd.cli.errors import Trouble
from chatd.cli.session import DEFAULT_SERVER, Session, SessionFile
from chatd.client import APIError, ChatError, Unreachable

Command = Callable[[argparse.Namespace, Session], Coroutine[Deferred[Any], Any, None]]

INTERRUPTED: Final = 130
"""What a shell says of a command that Ctrl-C ended."""


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="chatd",
        description="Chat from a terminal, or run the chat daemon.",
        epilog="The first minute: chatd demo.",
    )
    top.add_argument("--version", action="version", version=f"chatd {__version__}")
    top.add_argument(
        "--session",
        metavar="FILE",
        type=Path,
        help="where the token of a log-in is kept (default: chatd/session.json in the folder "
        "for configuration)",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, call: Command, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(call=call)
        return command

    for name, call, summary in [
        ("register", accounts.register, "Make an account and log in."),
        ("login", accounts.log_in, "Log in; the token is kept in a file that only you can read."),
    ]:
        command = add(name, call, summary)
        command.add_argument("username", metavar="NAME")
        if name == "register":
            command.add_argument("--email", metavar="ADDRESS", help="asked for unless given")
        command.add_argument(
            "--server", metavar="URL", default=DEFAULT_SERVER, help=f"default: {DEFAULT_SERVER}"
        )
        command.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )
    add("logout", accounts.log_out, "Revoke the token and forget it.")
    add("whoami", accounts.who_am_i, "Tell who is logged in, and where.")

    send = add("send", messages.send, "Send a message.")
    send.add_argument("user", metavar="USER", help="the name of the recipient")
    send.add_argument(
        "text", metavar="TEXT", nargs="*", help="standard input unless given; words are joined"
    )
    send.add_argument("--json", action="store_true", help="print the message as JSON")

    tail = add("tail", messages.tail, "Print messages as they arrive.")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")
    tail.add_argument(
        "--since",
        metavar="PLACE",
        default="now",
        help="0 (the beginning), now (default), or a cursor",
    )
    tail.add_argument(
        "--resume",
        metavar="FILE",
        type=Path,
        help="keep the place in a file, and go on from there if it exists",
    )
    tail.add_argument("--count", metavar="N", type=int, help="end after so many messages")

    talk = add("chat", chat.chat, "Talk with somebody: type while messages come in.")
    talk.add_argument("user", metavar="USER", help="the name of the other one")

    show = add("demo", demo.demo, "Run a daemon in a temporary folder with two people talking.")
    show.add_argument("--once", action="store_true", help="end after the conversation")

    commands.add_parser(
        "serve",
        help="Run the daemon in the foreground.",
        description="Run the daemon in the foreground.",
        add_help=False,
    )
    completion = commands.add_parser(
        "completion", help="Print the completions of a shell.", description="For eval or a file."
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return top


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 if it did what it should, else 1 with one line that says why."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        serve.serve(given[1:])
    grammar = parser()
    args = grammar.parse_args(given)
    if args.command == "completion":
        import shtab

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(shtab.complete(grammar, args.shell))
        raise SystemExit
    session = SessionFile(args.session)
    run = Run(args, session)
    try:
        react(run.start)
    finally:
        if run.interrupted:
            raise SystemExit(INTERRUPTED)
    raise AssertionError("react exits")


class Run:
    """One run of a command, from the reactor's start until the command has cleaned up."""

    def __init__(self, args: argparse.Namespace, session: SessionFile) -> None:
        self._args = args
        self._session = session
        self.interrupted = False

    def start(self, reactor: Any) -> Deferred[None]:
        """Begin; the reactor stops when the Deferred fires, and waits for it when interrupted."""
        work = Deferred.fromCoroutine(_run(self._args, Session(reactor, self._session)))
        reactor.addSystemEventTrigger("before", "shutdown", self._stopping, work)
        return work

    def _stopping(self, work: Deferred[None]) -> Deferred[None] | None:
        if work.called:
            return None
        self.interrupted = True
        ended: Deferred[None] = Deferred()

        def tell(result: object) -> object:
            ended.callback(None)
            return result

        # react itself would stop here and now, and leave everything half done.
        work.addBoth(tell)
        work.cancel()
        return ended


async def _run(args: argparse.Namespace, session: Session) -> None:
    """Run a command; raises SystemExit with what went wrong."""
    try:
        await args.call(args, session)
    except Trouble as trouble:
        raise SystemExit(f"chatd: {trouble}") from None
    except CancelledError:
        # Interrupted: `Run` knows.
        return
    except APIError as refused:
        if refused.code == "unauthorized" and args.command not in ("login", "register"):
            raise SystemExit("chatd: the log-in has ended: chatd login NAME") from None
        raise SystemExit(f"chatd: {refused.detail}") from None
    except Unreachable as problem:
        raise SystemExit(f"chatd: cannot reach {session.server}: {problem}") from None
    except ChatError as problem:
        raise SystemExit(f"chatd: {problem}") from None
    except BrokenPipeError:
        # Its reader went away (`chatd tail | head`); the flush at the exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit from None
    finally:
        await session.close()

"""The `chatd` command: argument parsing, running a subcommand, exit status."""

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
from chatd.cli.errors import CommandError
from chatd.cli.session import DEFAULT_SERVER, Session, SessionFile
from chatd.client import APIError, ChatError, Unreachable

Command = Callable[[argparse.Namespace, Session], Coroutine[Deferred[Any], Any, None]]

INTERRUPTED: Final = 130
"""The exit status of a command ended by Ctrl-C, as shells report it."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        prog="chatd",
        description="Chat from a terminal, or run the chat daemon.",
        epilog="New here? Try chatd demo.",
    )
    top.add_argument("--version", action="version", version=f"chatd {__version__}")
    top.add_argument(
        "--session",
        metavar="FILE",
        type=Path,
        help="file that stores the login (default: chatd/session.json in $XDG_CONFIG_HOME or "
        "~/.config)",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, call: Command, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(call=call)
        return command

    for name, call, summary in [
        ("register", accounts.register, "Create an account and log in."),
        ("login", accounts.log_in, "Log in; the token is stored in a file that only you can read."),
    ]:
        command = add(name, call, summary)
        command.add_argument("username", metavar="NAME")
        if name == "register":
            command.add_argument(
                "--email", metavar="ADDRESS", help="email address (default: ask for it)"
            )
        command.add_argument(
            "--server", metavar="URL", default=DEFAULT_SERVER, help=f"default: {DEFAULT_SERVER}"
        )
        command.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )
    add("logout", accounts.log_out, "Revoke the token and delete it.")
    add("whoami", accounts.whoami, "Show who is logged in, and on which server.")

    send = add("send", messages.send, "Send a message.")
    send.add_argument("user", metavar="USER", help="the recipient's name")
    send.add_argument(
        "text", metavar="TEXT", nargs="*", help="the message (default: read standard input)"
    )
    send.add_argument("--json", action="store_true", help="print the message as JSON")

    tail = add("tail", messages.tail, "Print messages as they arrive.")
    tail.add_argument("--json", action="store_true", help="print one JSON object per line")
    tail.add_argument(
        "--since",
        metavar="CURSOR",
        default="now",
        help="where to start: 0 (the beginning), now (default), or a cursor",
    )
    tail.add_argument(
        "--resume",
        metavar="FILE",
        type=Path,
        help="save the position in FILE, and continue from it if the file exists",
    )
    tail.add_argument("--count", metavar="N", type=int, help="exit after N messages")

    conversation = add("chat", chat.chat, "Chat with somebody in the terminal.")
    conversation.add_argument("user", metavar="USER", help="the other person's name")

    show = add("demo", demo.demo, "Run a daemon in a temporary directory with two people chatting.")
    show.add_argument("--once", action="store_true", help="exit after the conversation")

    commands.add_parser(
        "serve",
        help="Run the daemon in the foreground.",
        description="Run the daemon in the foreground.",
        add_help=False,
    )
    completion = commands.add_parser(
        "completion",
        help="Print the completion script of a shell.",
        description='Print a completion script: eval "$(chatd completion bash)"',
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return top


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 on success, 1 with a one-line message on failure."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        serve.serve(given[1:])
    top = parser()
    args = top.parse_args(given)
    if args.command == "serve":
        # After an option of `chatd` itself; those of the daemon follow `serve`.
        serve.serve([])
    if args.command == "completion":
        import shtab

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(shtab.complete(top, args.shell))
        raise SystemExit
    session = SessionFile(args.session)
    runner = CommandRunner(args, session)
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
        await args.call(args, session)
    except CommandError as error:
        raise SystemExit(f"chatd: {error}") from None
    except CancelledError:
        # Interrupted: `CommandRunner` sets the exit status.
        return
    except KeyboardInterrupt:
        # At a prompt, before the reactor has taken over the signals.
        raise SystemExit(INTERRUPTED) from None
    except EOFError:
        raise SystemExit("chatd: no input") from None
    except APIError as error:
        if error.code == "unauthorized" and args.command not in ("login", "register"):
            raise SystemExit("chatd: the login has expired; run chatd login NAME") from None
        raise SystemExit(f"chatd: {error.detail}") from None
    except Unreachable as error:
        raise SystemExit(f"chatd: cannot reach {session.server}: {error}") from None
    except ChatError as error:
        raise SystemExit(f"chatd: {error}") from None
    except BrokenPipeError:
        # The reader has exited (`chatd tail | head`); flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit from None
    finally:
        await session.close()

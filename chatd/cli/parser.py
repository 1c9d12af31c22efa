"""The command line of `chatd`.

This module imports neither Twisted nor the client, so that help and completion appear at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from chatd import __version__
from chatd.admin.parser import add_commands

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"


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

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary)

    for name, summary in [
        ("register", "Create an account and log in."),
        ("login", "Log in; the token is stored in a file that only you can read."),
    ]:
        command = add(name, summary)
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
    add("logout", "Revoke the token and delete it.")
    add("whoami", "Show who is logged in, and on which server.")

    passwd = add("passwd", "Change the password, which ends all other sessions.")
    passwd.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the current and the new password from standard input, a line each",
    )
    sessions = add("sessions", "List what is logged in to the account, or end it.")
    revoking = sessions.add_mutually_exclusive_group()
    revoking.add_argument("--revoke", metavar="ID", type=int, help="end the session of this id")
    revoking.add_argument(
        "--revoke-others", action="store_true", help="end all sessions but this one"
    )

    send = add("send", "Send a message.")
    send.add_argument("user", metavar="USER", help="the recipient's name")
    send.add_argument(
        "text", metavar="TEXT", nargs="*", help="the message (default: read standard input)"
    )
    send.add_argument("--json", action="store_true", help="print the message as JSON")

    listing = add("conversations", "List conversations, the one with the newest message first.")
    listing.add_argument(
        "--limit", metavar="N", type=_positive, default=50, help="how many (default: 50)"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")

    tail = add("tail", "Print messages as they arrive.")
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
    tail.add_argument(
        "--changes",
        action="store_true",
        help="also what other devices of the account send, edits and deletions, and what is "
        "delivered and read",
    )
    tail.add_argument(
        "--count", metavar="N", type=int, help="exit after N messages, or changes if asked for"
    )
    tail.add_argument(
        "--transport",
        choices=["auto", "stream", "poll"],
        default="auto",
        help="how to receive: one stream, or long polls; auto (default) polls where streams do "
        "not get through",
    )

    conversation = add(
        "chat", "Chat with somebody in the terminal; /help there lists commands and keys."
    )
    conversation.add_argument("user", metavar="USER", help="the other person's name")

    add_commands(commands)

    show = add("demo", "Run a daemon in a temporary directory with two people chatting.")
    show.add_argument("--once", action="store_true", help="exit after the conversation")

    examine = add(
        "doctor",
        "Examine what lies between this machine and a service: how long polls are held, whether "
        "streams are buffered, clocks, the address that the service sees. It takes a minute.",
    )
    examine.add_argument("url", metavar="URL", help="the service, as clients reach it")
    examine.add_argument(
        "--token-file",
        metavar="FILE",
        help="read the token of an account from FILE, - for standard input (default: that of "
        "chatd login at this service, or of an account that is made and deleted)",
    )
    examine.add_argument("--json", action="store_true", help="print one JSON object")

    probe = add("health", "Check that a daemon responds; the exit status tells.")
    probe.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        default=DEFAULT_SERVER,
        help=f"the daemon, or its operators' listener (default: {DEFAULT_SERVER})",
    )
    probe.add_argument(
        "--ready", action="store_true", help="check that it should be sent requests, too"
    )

    for name, summary in [
        ("serve", "Run the daemon in the foreground."),
        ("check-config", "Check the daemon's settings, certificates and database."),
    ]:
        commands.add_parser(name, help=summary, description=summary, add_help=False)
    completion = commands.add_parser(
        "completion",
        help="Print the completion script of a shell.",
        description='Print a completion script: eval "$(chatd completion bash)"',
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish", "tcsh"])
    return top


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{text} is not positive")
    return number

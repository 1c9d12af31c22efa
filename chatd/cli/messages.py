"""`chatd send` and `chatd tail`."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path

from chatd.cli.changes import describe
from chatd.cli.errors import CommandError
from chatd.cli.printing import UsernameCache, escape_controls, format_message, to_json
from chatd.cli.session import Session
from chatd.cli.style import style_for
from chatd.cli.transcript import Transcript
from chatd.client import (
    APIError,
    Change,
    ChatClient,
    ChatError,
    Follow,
    FollowChanges,
    Message,
    MessageSent,
    Position,
    User,
)


async def find_user(client: ChatClient, name: str) -> User:
    """The user with that name; raises `CommandError` if there is none."""
    try:
        return await client.user_named(name)
    except APIError as error:
        if error.code == "user_not_found":
            raise CommandError(f"no such user: {name}") from None
        raise


async def send(args: argparse.Namespace, session: Session) -> None:
    """Send the words from the command line, or else standard input."""
    client, _ = session.logged_in()
    text = " ".join(args.text) if args.text else _read_message()
    user = await find_user(client, args.user)
    sent = await client.send(user.id, text)
    if args.json:
        print(to_json(sent.message))


def _read_message() -> str:
    if sys.stdin.isatty():
        print("Type the message; Ctrl-D on a new line sends it.", file=sys.stderr)
    return sys.stdin.read().removesuffix("\n")


async def tail(args: argparse.Namespace, session: Session) -> None:
    """Print messages as they arrive, until interrupted or `--count` is reached."""
    client, login = session.logged_in()
    transcript = None
    if sys.stdout.isatty():
        transcript = Transcript(style_for(sys.stdout, os.environ), login.user_id)
    since: str | Position = args.since
    if args.resume is not None:
        since = load_position(args.resume) or since
    printer = TextFormat(client, login.user_id, transcript)
    follow = _follow(client, since, args)
    remaining = args.count
    while remaining is None or remaining > 0:
        item = await follow.__anext__()
        text = to_json(item) if args.json else await printer.format(item)
        if text is not None:
            print(text, flush=True)
            remaining = None if remaining is None else remaining - 1
        if args.resume is not None:
            save_position(args.resume, follow.position)


def _follow(
    client: ChatClient, since: str | Position, args: argparse.Namespace
) -> Follow | FollowChanges:
    if args.changes:
        return client.follow(
            since,
            changes=True,
            transport=args.transport,
            on_connection_change=report_connection,
        )
    return client.follow(since, transport=args.transport, on_connection_change=report_connection)


class TextFormat:
    """Messages and changes as text; with a transcript days are separated, for people."""

    def __init__(self, client: ChatClient, own_id: int, transcript: Transcript | None) -> None:
        self._names = UsernameCache(client)
        self._own_id = own_id
        self._transcript = transcript

    async def format(self, item: Message | Change) -> str | None:
        """The text for an item; None for a message to oneself that was shown as received."""
        if isinstance(item, Message):
            return self._format(item, await self._names.get(item.sent_by))
        if isinstance(item, MessageSent):
            message = item.message
            if message.received_by == self._own_id:
                return None
            names = [await self._names.get(each) for each in (message.sent_by, message.received_by)]
            return self._format(message, " to ".join(names))
        now = datetime.now().astimezone()
        return await describe(item, self._own_id, self._names.get, now)

    def _format(self, message: Message, name: str) -> str:
        if self._transcript is not None:
            return self._transcript.format(message, name)
        return format_message(message, name)


def load_position(path: Path) -> Position | None:
    """Read a position from a file, None if it does not exist."""
    try:
        return Position.parse(path.read_text("utf-8").strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{path} does not contain a position") from None


def save_position(path: Path, position: Position) -> None:
    """Write a position to a file, atomically."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(f"{position}\n", "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None


def report_connection(error: ChatError | None) -> None:
    """Report a lost connection, or with None a restored one, on standard error."""
    style = style_for(sys.stderr, os.environ)
    text = (
        style.note("connected again")
        if error is None
        else style.error(f"{escape_controls(str(error))}; trying again")
    )
    print(f"chatd: {text}", file=sys.stderr, flush=True)

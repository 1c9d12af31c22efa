"""`chatd send` and `chatd tail`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from chatd.cli.errors import Trouble
from chatd.cli.printing import Names, line
from chatd.cli.session import Session
from chatd.client import APIError, ChatClient, ChatError, Message, Position, User


async def find(client: ChatClient, name: str) -> User:
    """The user of a name; raises `Trouble` if there is none."""
    try:
        return await client.user_named(name)
    except APIError as refused:
        if refused.code == "user_not_found":
            raise Trouble(f"there is no user {name}") from None
        raise


async def send(args: argparse.Namespace, session: Session) -> None:
    """Send the words of the command line, or all of standard input."""
    client, _ = session.logged_in()
    text = " ".join(args.text) if args.text else sys.stdin.read().removesuffix("\n")
    user = await find(client, args.user)
    sent = await client.send(user.id, text)
    if args.json:
        print(as_json(sent.message))


async def tail(args: argparse.Namespace, session: Session) -> None:
    """Print messages as they arrive, until interrupted."""
    client, _ = session.logged_in()
    since: str | Position = args.since
    if args.resume is not None and args.resume.exists():
        try:
            since = Position.parse(args.resume.read_text("utf-8").strip())
        except ValueError:
            raise Trouble(f"{args.resume} holds no place") from None
    names = Names(client)
    follow = client.follow(since, on_trouble=complain)
    left = args.count
    while left is None or left > 0:
        message = await follow.__anext__()
        if args.json:
            print(as_json(message), flush=True)
        else:
            print(line(message, await names.of(message.sent_by)), flush=True)
        if args.resume is not None:
            keep(args.resume, follow.position)
        left = None if left is None else left - 1


def keep(path: Path, position: Position) -> None:
    """Write a place down, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(f"{position}\n", "utf-8")
    os.replace(temporary, path)


def as_json(message: Message) -> str:
    """A message as the service shows it, in one line."""
    return msgspec.json.encode(message).decode()


def complain(problem: ChatError | None) -> None:
    """Say that the service is away, or back."""
    text = "connected again" if problem is None else f"{problem}; trying again"
    print(f"chatd: {text}", file=sys.stderr, flush=True)

"""`chatd register`, `login`, `logout` and `whoami`."""

from __future__ import annotations

import argparse
import getpass
import sys

from chatd.cli.errors import Trouble
from chatd.cli.session import LogIn, Session
from chatd.client import ChatClient


async def register(args: argparse.Namespace, session: Session) -> None:
    """Make an account and log in."""
    client = session.connect(args.server)
    email = args.email or _asked("Email: ")
    password = _password(args, twice=True)
    await client.register(args.username, email, password)
    await _enter(client, args.username, password, session)


async def log_in(args: argparse.Namespace, session: Session) -> None:
    """Get a token and keep it."""
    client = session.connect(args.server)
    await _enter(client, args.username, _password(args, twice=False), session)


async def _enter(client: ChatClient, username: str, password: str, session: Session) -> None:
    token = await client.log_in(username, password)
    me = await client.me()
    session.file.write(LogIn(session.server, me.username, me.id, token))
    print(f"Logged in as {me.username} at {session.server}.")


async def log_out(args: argparse.Namespace, session: Session) -> None:
    """Revoke the token and forget it."""
    client, kept = session.logged_in()
    await client.log_out()
    session.file.remove()
    print(f"{kept.username} is logged out.")


async def who_am_i(args: argparse.Namespace, session: Session) -> None:
    """Print the name of the account and the server."""
    client, _ = session.logged_in()
    me = await client.me()
    print(f"{me.username} (user {me.id}) at {session.server}")


def _password(args: argparse.Namespace, *, twice: bool) -> str:
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise Trouble("there is no terminal to ask for the password: --password-stdin")
    password = getpass.getpass("Password: ")
    if twice and getpass.getpass("Again: ") != password:
        raise Trouble("these were two different passwords")
    return password


def _asked(question: str) -> str:
    if not sys.stdin.isatty():
        raise Trouble("there is no terminal to ask for the email: --email ADDRESS")
    return input(question).strip()

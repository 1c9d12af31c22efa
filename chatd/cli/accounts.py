"""`chatd register`, `login`, `logout` and `whoami`."""

from __future__ import annotations

import argparse
import getpass
import sys

from chatd.cli.errors import CommandError
from chatd.cli.session import SavedLogin, Session
from chatd.client import ChatClient


async def register(args: argparse.Namespace, session: Session) -> None:
    """Create an account and log in."""
    client = session.connect(args.server)
    email = args.email or _prompt_for_email()
    password = _read_password(args, confirm=True)
    await client.register(args.username, email, password)
    await _save_login(client, args.username, password, session)


async def log_in(args: argparse.Namespace, session: Session) -> None:
    """Get a token and save it."""
    client = session.connect(args.server)
    await _save_login(client, args.username, _read_password(args, confirm=False), session)


async def _save_login(client: ChatClient, username: str, password: str, session: Session) -> None:
    token = await client.log_in(username, password)
    me = await client.me()
    session.file.save(SavedLogin(session.server, me.username, me.id, token))
    print(f"Logged in as {me.username} at {session.server}.")


async def log_out(args: argparse.Namespace, session: Session) -> None:
    """Revoke the token and delete it."""
    client, login = session.logged_in()
    await client.log_out()
    session.file.delete()
    print(f"Logged out {login.username}.")


async def whoami(args: argparse.Namespace, session: Session) -> None:
    """Print the name of the account and the server."""
    client, _ = session.logged_in()
    me = await client.me()
    print(f"{me.username} (user {me.id}) at {session.server}")


def _read_password(args: argparse.Namespace, *, confirm: bool) -> str:
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for the password: use --password-stdin")
    password = getpass.getpass("Password: ")
    if confirm and getpass.getpass("Repeat password: ") != password:
        raise CommandError("the passwords differ")
    return password


def _prompt_for_email() -> str:
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for the email: use --email ADDRESS")
    return input("Email: ").strip()

"""`chatd register`, `login`, `logout`, `whoami` and `passwd`."""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
from typing import Final

from chatd.cli.errors import CommandError
from chatd.cli.printing import escape_controls
from chatd.cli.session import SavedLogin, Session
from chatd.client import APIError, ChatClient

LABEL_CHARACTERS: Final = 64
"""The longest label of a token."""


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
    token = await log_in_with_label(client, username, password)
    me = await client.me()
    session.file.save(SavedLogin(session.server, me.username, me.id, token))
    print(f"Logged in as {escape_controls(me.username)} at {session.server}.")


async def log_in_with_label(client: ChatClient, username: str, password: str) -> str:
    """Get a token that `chatd sessions` lists with the name of this machine."""
    label = f"chatd on {socket.gethostname()}"[:LABEL_CHARACTERS]
    try:
        return await client.log_in(username, password, label=label)
    except APIError as error:
        if error.code != "invalid_body":
            raise
        # Version 1 of the service knows no labels.
        return await client.log_in(username, password)


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
    print(f"{escape_controls(me.username)} (user {me.id}) at {session.server}")


async def passwd(args: argparse.Namespace, session: Session) -> None:
    """Change the password, which ends all other sessions."""
    client, _ = session.logged_in()
    if args.password_stdin:
        current, new = _read_line(), _read_line()
    else:
        _require_terminal()
        current = getpass.getpass("Current password: ")
        new = _ask_twice("New password: ", "Repeat new password: ")
    try:
        await client.change_password(current, new)
    except APIError as error:
        raise _explained(error) from None
    print("The password is changed. All other sessions of the account have ended.")


def _explained(error: APIError) -> Exception:
    if error.code == "wrong_password":
        return CommandError("the current password is wrong")
    return too_old(error)


def too_old(error: APIError) -> Exception:
    """The error, or a clearer one if the service is too old for the call."""
    if error.status == 405:
        return CommandError("this service is too old for that")
    return error


def _read_password(args: argparse.Namespace, *, confirm: bool) -> str:
    if args.password_stdin:
        return _read_line()
    _require_terminal()
    if confirm:
        return _ask_twice("Password: ", "Repeat password: ")
    return getpass.getpass("Password: ")


def _read_line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _require_terminal() -> None:
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for the password: use --password-stdin")


def _ask_twice(prompt: str, repeat: str) -> str:
    password = getpass.getpass(prompt)
    if getpass.getpass(repeat) != password:
        raise CommandError("the passwords differ")
    return password


def _prompt_for_email() -> str:
    if not sys.stdin.isatty():
        raise CommandError("no terminal to ask for the email: use --email ADDRESS")
    return input("Email: ").strip()

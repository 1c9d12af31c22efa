"""`chatd user`: accounts."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from chatd.admin.access import access
from chatd.admin.errors import AdminError
from chatd.admin.passwords import hash_password, read_password
from chatd.admin.printing import Record, print_fields, print_json, print_table, timestamp
from chatd.config import Settings
from chatd.domain.administration import (
    AddUser,
    DeleteUser,
    DisableUser,
    EnableUser,
    ListUsers,
    Request,
    SetPassword,
    ShowUser,
)
from chatd.model import AccountState

LIST_STEP: Final = 200
"""How many accounts are asked for at a time."""


async def add(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Create an account."""
    password = read_password(args, settings.min_password_length)
    request = AddUser(args.username, args.email, hash_password(password))
    state = await _change(request, settings, reactor)
    _report(args, state, f"{args.username} is user {state.account.id}.", password)


async def passwd(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Set a password."""
    password = read_password(args, settings.min_password_length)
    state = await _change(SetPassword(args.username, hash_password(password)), settings, reactor)
    _report(args, state, "The password is changed. All sessions have ended.", password)


async def disable(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Disable an account."""
    state = await _change(DisableUser(args.username), settings, reactor)
    _report(args, state, f"{state.account.username} is disabled. All sessions have ended.")


async def enable(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Enable an account."""
    state = await _change(EnableUser(args.username), settings, reactor)
    _report(args, state, f"{state.account.username} can log in.")


async def delete(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Delete an account."""
    if not args.yes:
        if not sys.stdin.isatty():
            raise AdminError("no terminal to ask whether that is meant: use --yes")
        if input(f"Delete {args.username} for good? Type the name again: ") != args.username:
            raise AdminError("nothing was deleted")
    async with access(settings, reactor) as database:
        await database.perform(DeleteUser(args.username, args.erase))
    if args.json:
        print_json({"username": args.username, "deleted": True})
    else:
        sys.stdout.write(f"{args.username} is deleted.\n")


async def show(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Show an account."""
    state = await _change(ShowUser(args.username), settings, reactor)
    (print_json if args.json else print_fields)(account_record(state))


async def list_all(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """List all accounts."""
    states: list[AccountState] = []
    async with access(settings, reactor) as database:
        after = 0
        while True:
            found = (await database.perform(ListUsers(after, LIST_STEP))).users
            states += found
            if len(found) < LIST_STEP:
                break
            after = found[-1].account.id
    if args.json:
        for state in states:
            print_json(account_record(state))
        return
    columns = [
        "ID",
        "NAME",
        "EMAIL",
        "JOINED",
        "LAST SEEN",
        "MESSAGES",
        "BYTES",
        "TOKENS",
        "DISABLED",
    ]
    print_table(columns, [list(account_record(state).values()) for state in states])


async def _change(request: Request, settings: Settings, reactor: Any) -> AccountState:
    """Perform a request that is answered with one account."""
    async with access(settings, reactor) as database:
        [state] = (await database.perform(request)).users
    return state


def _report(
    args: argparse.Namespace, state: AccountState, text: str, password: str | None = None
) -> None:
    """Report a change, with the password if it was made up."""
    made_up = password if password is not None and args.generate_password else None
    if args.json:
        print_json({**account_record(state), **({"password": made_up} if made_up else {})})
        return
    sys.stdout.write(text + "\n")
    if made_up:
        sys.stdout.write(f"password: {made_up}\n")


def account_record(state: AccountState) -> Record:
    """An account as it is printed."""
    account = state.account
    return {
        "id": account.id,
        "username": account.username,
        "email": account.email,
        "date_joined": timestamp(account.date_joined),
        "last_seen_at": timestamp(account.last_seen_at),
        "messages": state.messages,
        "bytes": state.bytes,
        "tokens": state.tokens,
        "disabled_at": timestamp(state.disabled_at),
    }

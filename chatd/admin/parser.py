"""The command lines of the commands for administrators; imports nothing that takes time."""

from __future__ import annotations

import argparse
from typing import Any, Final

COMMANDS: Final = ("user", "token", "db", "export")


def add_commands(commands: Any) -> None:
    """Add the commands to those of `chatd`, the result of `add_subparsers`."""
    users = _group(commands, "user", "Manage the accounts of the service, as its administrator.")
    add = _add(users, "add", "Create an account, also where registration is closed.")
    _add_name(add)
    add.add_argument("--email", metavar="ADDRESS", required=True, help="email address")
    _add_password(add)
    _add(users, "list", "List the accounts.")
    _add_name(_add(users, "show", "Show an account."))
    passwd = _add(users, "passwd", "Set a password, which ends all sessions of the account.")
    _add_name(passwd)
    _add_password(passwd)
    _add_name(_add(users, "disable", "End all sessions of an account and refuse log-ins to it."))
    _add_name(_add(users, "enable", "Let a disabled account log in again."))
    delete = _add(users, "delete", "Delete an account with its inbox. Its name stays taken.")
    _add_name(delete)
    delete.add_argument("--yes", action="store_true", help="do not ask whether that is meant")
    delete.add_argument(
        "--erase",
        action="store_true",
        help="also delete what the account has sent from the inboxes of others; the daemon does "
        "that within a minute, or when it starts",
    )

    tokens = _group(commands, "token", "Manage the tokens of an account, as an administrator.")
    _add_name(_add(tokens, "list", "List what is logged in to an account."))
    revoke = _add(tokens, "revoke", "End what is logged in to an account.")
    _add_name(revoke)
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("id", metavar="ID", type=int, nargs="?", help="id of the token")
    which.add_argument("--all", action="store_true", help="all tokens of the account")

    database = _group(commands, "db", "Maintain the database, as an administrator.")
    _add(database, "status", "Show what the database holds, and how large it is.")
    _add(database, "upgrade", "Create the database, or bring its schema up to date.")
    backup = _add(database, "backup", "Copy the database to a new file, while daemons use it.")
    backup.add_argument("target", metavar="FILE", help="a new file, or a folder for copies")
    backup.add_argument(
        "--keep",
        metavar="N",
        type=_positive,
        help="delete the oldest copies in the folder until N are left",
    )
    restore = _add(database, "restore", "Replace the database by a copy; no daemon may use it.")
    restore.add_argument("source", metavar="FILE")
    _add(database, "check", "Check that what is stored is consistent.")
    vacuum = _add(database, "vacuum", "Return space that holds nothing to the disk.")
    vacuum.add_argument(
        "--full",
        action="store_true",
        help="on PostgreSQL, write each table anew; daemons wait meanwhile",
    )

    shard = _add(
        database,
        "shard",
        "Spread the tables over the servers of Citus; no daemon may use the database.",
    )
    how = shard.add_mutually_exclusive_group()
    how.add_argument(
        "--shards", metavar="N", type=int, help="shards of each table (default: 4 for each server)"
    )
    how.add_argument(
        "--back", action="store_true", help="bring everything back to the coordinator instead"
    )

    export = _add(commands, "export", "Print all that belongs to an account, JSON line by line.")
    export.add_argument("--user", metavar="NAME", required=True, dest="username")
    export.set_defaults(action="user")


def _group(commands: Any, name: str, summary: str) -> Any:
    group = commands.add_parser(name, help=summary, description=summary)
    return group.add_subparsers(dest="action", metavar="ACTION", required=True)


def _add(group: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, help=summary, description=summary)
    parser.add_argument("--config", metavar="FILE", help="the daemon's TOML file")
    parser.add_argument("--db", metavar="URL", help="the database, as of the daemon")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("username", metavar="NAME")


def _add_password(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--password-file",
        metavar="FILE",
        help="read the password from the first line of FILE, - for standard input "
        "(default: ask for it)",
    )
    where.add_argument(
        "--generate-password", action="store_true", help="make a password up and print it"
    )

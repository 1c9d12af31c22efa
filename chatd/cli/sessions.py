"""`chatd sessions`: what is logged in to the account."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime

from chatd.cli.accounts import too_old
from chatd.cli.errors import CommandError
from chatd.cli.printing import escape_controls
from chatd.cli.session import Session
from chatd.cli.tables import align
from chatd.client import APIError, Token

ALL_SCOPES = 3
"""How many scopes there are: a token that has them all is not limited."""


async def sessions(args: argparse.Namespace, session: Session) -> None:
    """List the tokens of the account, or revoke one or all others."""
    client, login = session.logged_in()
    try:
        if args.revoke_others:
            await client.revoke_other_tokens()
            print("All other sessions have ended.")
            return
        tokens = await client.tokens()
        if args.revoke is None:
            print("\n".join(table(tokens)))
            return
        await client.revoke_token(args.revoke)
    except APIError as error:
        if error.code == "token_not_found":
            raise CommandError(f"there is no session {args.revoke}; run chatd sessions") from None
        raise too_old(error) from None
    if any(token.current for token in tokens if token.id == args.revoke):
        session.file.delete()
        print(f"Logged out {login.username}.")
    else:
        print(f"Session {args.revoke} has ended.")


def table(tokens: Sequence[Token]) -> list[str]:
    """The lines of the list, with control characters escaped."""
    rows = [("ID", "LABEL", "CREATED", "LAST USED", "")]
    rows += [
        (
            str(token.id),
            escape_controls(token.label or "-").replace("\n", "\\x0a"),
            _time(token.created_at),
            _time(token.last_used_at),
            _notes(token),
        )
        for token in tokens
    ]
    return align(rows)


def _notes(token: Token) -> str:
    """What is special about a token."""
    notes = ["this one"] if token.current else []
    if len(token.scopes) < ALL_SCOPES:
        notes.append("only " + ", ".join(map(escape_controls, token.scopes)))
    if token.expires_at is not None:
        notes.append(f"until {_time(token.expires_at)}")
    return "; ".join(notes)


def _time(time: datetime | None) -> str:
    return "never" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")

"""`chatd token`: what is logged in to an account."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from chatd.admin.access import access
from chatd.admin.printing import Record, print_json, print_table, timestamp
from chatd.config import Settings
from chatd.domain.administration import ListTokens, RevokeTokens, TokenState


async def list_all(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """List the tokens of an account."""
    async with access(settings, reactor) as database:
        tokens = (await database.perform(ListTokens(args.username))).tokens
    if args.json:
        for token in tokens:
            print_json(token_record(token))
        return
    columns = ["ID", "LABEL", "SCOPES", "CREATED", "LAST USED", "EXPIRES"]
    print_table(columns, [list(token_record(token).values()) for token in tokens])


async def revoke(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Revoke one token of an account, or all."""
    async with access(settings, reactor) as database:
        await database.perform(RevokeTokens(args.username, args.id))
    if args.json:
        print_json({"username": args.username, "revoked": "all" if args.all else args.id})
    else:
        what = "All tokens are" if args.all else f"Token {args.id} is"
        sys.stdout.write(f"{what} revoked.\n")


def token_record(token: TokenState) -> Record:
    """A token as it is printed."""
    return {
        "id": token.id,
        "label": token.label,
        "scopes": list(token.scopes),
        "created_at": timestamp(token.created_at),
        "last_used_at": timestamp(token.last_used_at),
        "expires_at": timestamp(token.expires_at),
    }

"""The tables of the sharded layout, and statements on the shards of one lane."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

DISTRIBUTED: Final[Mapping[str, str]] = {
    "account": "id",
    "batch": "owner",
    "block": "user_id",
    "change": "user_id",
    "claim": "sent_by",
    "contact": "received_by",
    "conversation_summary": "user_id",
    "delivered": "user_id",
    "erasure": "user_id",
    "idempotency": "received_by",
    "inbox": "user_id",
    "message": "received_by",
    "purge": "user_id",
    "seen": "user_id",
    "sync_state": "user_id",
    "token": "user_id",
    "username": "slot",
}
"""The column by which each table is distributed; all of them are co-located."""

REFERENCE: Final = ("schema_version", "history")
"""Tables with a copy on every server."""

ALLOCATION: Final = "id_allocation"
"""The table of the ids that are not handed out yet; it is on the coordinator only."""

_TABLE: Final = re.compile(
    rf"\b(FROM|JOIN|INTO|UPDATE|USING) +({'|'.join(DISTRIBUTED)})\b(?![.(])( AS \w+)?"
)


def on_shards(sql: str, shards: Mapping[str, str]) -> str:
    """The statement with the names of shards, by table, in place of those of tables.

    Columns can be named by the table as before. The names that a statement gives to its own
    subqueries must not be those of tables.
    """

    def named(match: re.Match[str]) -> str:
        verb, table, alias = match.groups()
        return f"{verb} {shards[table]}{alias or f' AS {table}'}"

    return _TABLE.sub(named, sql)


def username_slot(folded: str) -> int:
    """The number by which a username is distributed; `SLOT` is the same in SQL."""
    return int(hashlib.md5(folded.encode("utf-8"), usedforsecurity=False).hexdigest()[:12], 16)


SLOT: Final = "('x' || left(md5(username_folded), 12))::bit(48)::bigint"

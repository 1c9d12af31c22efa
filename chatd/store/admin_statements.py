"""SQL statements of administrators that SQLite and PostgreSQL share, see `statements`."""

from __future__ import annotations

from typing import Any, Final

from chatd.model import Account, AccountState
from chatd.store.statements import Rows, Statement

# `{source}` may join other tables that hold columns of accounts.
_STATE: Final = """
SELECT id, username, email, date_joined, last_seen_at, disabled_at,
    (SELECT last_seq - removed_seq FROM inbox WHERE inbox.user_id = account.id),
    (SELECT text_bytes FROM inbox WHERE inbox.user_id = account.id),
    (SELECT count(*) FROM token WHERE token.user_id = account.id
        AND (expires_at IS NULL OR expires_at > :now))
FROM {source} WHERE deleted_at IS NULL AND {condition} ORDER BY id LIMIT :limit
"""

IS_ACCOUNT: Final = "SELECT id FROM account WHERE id = :user_id AND deleted_at IS NULL"

SET_PASSWORD: Final = (
    "UPDATE account SET password_hash = :password_hash WHERE id = :user_id AND deleted_at IS NULL"
)
DISABLE: Final = (
    "UPDATE account SET disabled_at = coalesce(disabled_at, :at)"
    " WHERE id = :user_id AND deleted_at IS NULL"
)
ENABLE: Final = (
    "UPDATE account SET disabled_at = NULL WHERE id = :user_id AND deleted_at IS NULL RETURNING id"
)
_RECIPIENTS: Final = "SELECT received_by FROM contact WHERE sent_by = :user_id ORDER BY received_by"
REVOKE_ALL: Final = "DELETE FROM token WHERE user_id = :user_id"


def accounts(
    after: int, limit: int, now: int, source: str = "account"
) -> Statement[list[AccountState]]:
    """See `IAdminStore.accounts`."""
    sql = _STATE.format(source=source, condition="id > :after")
    return Statement(sql, {"after": after, "limit": limit, "now": now}, _states)


def account_named(
    username: str, now: int, source: str = "account"
) -> Statement[AccountState | None]:
    """See `IAdminStore.account_named`."""
    sql = _STATE.format(source=source, condition="username_folded = :folded")
    parameters: dict[str, Any] = {"folded": username.lower(), "limit": 1, "now": now}
    return Statement(sql, parameters, lambda rows: next(iter(_states(rows)), None))


def enable(user_id: int) -> Statement[bool]:
    """See `IAdminStore.enable`."""
    return Statement(ENABLE, {"user_id": user_id}, bool)


def recipients(user_id: int) -> Statement[list[int]]:
    """See `IAdminStore.recipients`."""
    return Statement(_RECIPIENTS, {"user_id": user_id}, lambda rows: [row[0] for row in rows])


def _states(rows: Rows) -> list[AccountState]:
    return [
        AccountState(Account(*account), disabled_at, messages or 0, size or 0, tokens)
        for *account, disabled_at, messages, size, tokens in rows
    ]

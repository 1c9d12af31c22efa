"""What administrators do with an account and its sessions, on PostgreSQL."""

from __future__ import annotations

from typing import Any, Final

from chatd.postgres.notify_payloads import CHANNEL, SessionsNotice, encode
from chatd.store.admin_statements import DISABLE, IS_ACCOUNT, REVOKE_ALL, SET_PASSWORD
from chatd.store.statements import Statement

# Several statements in one transaction, each of which sees what was committed before it began: the
# later ones miss no token from before the account's row was locked. All are safe to repeat.
_END_SESSIONS: Final = f"""
{REVOKE_ALL};
SELECT pg_notify(:channel, :payload) FROM ({IS_ACCOUNT}) AS found
"""
_SET_PASSWORD: Final = f"{SET_PASSWORD};{_END_SESSIONS}"
_DISABLE: Final = f"{DISABLE};{_END_SESSIONS}"


def set_password(user_id: int, password_hash: str, node_id: str) -> Statement[bool]:
    """See `IAdminStore.set_password`; notifies other processes."""
    return _ending_sessions(_SET_PASSWORD, user_id, node_id, password_hash=password_hash)


def disable(user_id: int, at: int, node_id: str) -> Statement[bool]:
    """See `IAdminStore.disable`; notifies other processes."""
    return _ending_sessions(_DISABLE, user_id, node_id, at=at)


def _ending_sessions(sql: str, user_id: int, node_id: str, **parameters: Any) -> Statement[bool]:
    notice = {"channel": CHANNEL, "payload": encode(node_id, SessionsNotice(user_id))}
    return Statement(sql, {"user_id": user_id, **parameters, **notice}, bool)

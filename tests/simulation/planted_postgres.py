"""Bugs that are planted where several daemons have one PostgreSQL, see `planted`."""

from __future__ import annotations

from typing import Any, Final

from msgspec import structs

from chatd.api.rendering import EncodedMessageCache
from chatd.bus.postgres import PostgresBus
from chatd.domain import poll
from chatd.domain.bus_subscriber import BusSubscriber
from chatd.model import Message
from chatd.postgres.notify_payloads import (
    MessagesNotice,
    NodeId,
    RevokedNotice,
    SessionsNotice,
    decode,
)
from chatd.store.postgres import append_sql, retry
from chatd.store.postgres.store import PostgresStore
from tests.simulation.planting import Patch, nothing, replace


def _renew_first_only(original: Any, self: Any) -> None:
    if not self.name:
        original(self)


def _wake_nobody(kind: type[Any]) -> Any:
    def on_payload(original: Any, self: Any, payload: str) -> None:
        if self._pending_ping is None and isinstance(decode(payload), kind):
            return
        original(self, payload)

    return on_payload


def _without_keys(original: Any, *, keyed: bool, **options: Any) -> Any:
    return original(keyed=False, **options)


def _keep_cache(original: Any, self: Any) -> None:
    self._is_notified = True


def _without_time(original: Any, self: Any, value: Message) -> Any:
    return original(self, structs.replace(value, sent_at=0))


def _false(original: Any, *args: Any) -> bool:
    return False


PLANTED: Final[dict[str, Patch]] = {
    "own notices are ignored after an unknown outcome": replace(NodeId, "renew", _renew_first_only),
    "nobody is woken when the bus is back": replace(BusSubscriber, "wake_all", nothing),
    "memory is kept when notices were missed": replace(PostgresStore, "on_connected", _keep_cache),
    "what others commit is not in memory": replace(PostgresStore, "on_notice", nothing),
    "what others commit wakes nobody": replace(
        PostgresBus, "_on_payload", _wake_nobody(MessagesNotice)
    ),
    "what others revoke ends no poll": replace(
        PostgresBus,
        "_on_payload",
        _wake_nobody((RevokedNotice, SessionsNotice)),  # type: ignore[arg-type]
    ),
    "a lost message stays encoded": replace(EncodedMessageCache, "__call__", _without_time),
    "cursors are not verified": replace(poll, "verify", nothing),
    "keys are not used": replace(append_sql, "append", _without_keys),
    "a lost connection refuses the statement": replace(retry, "is_connection_lost", _false),
    "a deadlock refuses the statement": replace(retry, "is_conflict", _false),
}
"""What is wrong, and the patch that makes it so."""

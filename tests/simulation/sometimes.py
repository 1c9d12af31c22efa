"""What some of many runs must have reached, so that they are known to look where it is rare.

Faults and clients count what they do themselves; `watching` counts rare branches of the product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from chatd.domain.message_stream import MessageStream
from chatd.domain.poll import Poll
from chatd.domain.sweep import Sweep
from chatd.errors import Unauthorized
from chatd.model import WakeReason
from chatd.postgres.notify_payloads import NodeId
from chatd.store import inbox_cache
from chatd.store.inbox_cache import InboxCache
from chatd.store.postgres.store import PostgresStore
from tests.simulation.database import Kind

COMMON: Final = (
    "copy put back",
    "crash",
    "cut",
    "drain",
    "half-open connection",
    "jump",
    "long poll answered late",
    "no request",
    "poll woken while it reads",
    "replayed",
    "requests at once",
    "revocation",
    "revocation without an answer",
    "send unknown: store_unavailable",
    "send without an answer",
    "slow reader",
    "stall",
    "stream behind while it is paused",
    "told of another history",
    "two sends with one key at once",
)
_POSTGRES: Final = (
    "SQLSTATE 40001",
    "SQLSTATE 40P01",
    "SQLSTATE 53100",
    "batch looked up after a lost answer",
    "cut after the commit, before the answer",
    "cut before the statement",
    "database connection lost",
    "database down or up",
    "database hangs or not",
    "statement of a closed connection",
    "sweep while the bus is away",
)
SOMETIMES: Final[dict[Kind, tuple[str, ...]]] = {
    "sqlite": (
        *COMMON,
        "checkpoint",
        "crash after commit, before the answer",
        "crash in a checkpoint",
        "crash in a transaction: torn",
        "disk full or not",
        "hold wake-ups",
        "inbox dropped from memory while it is read",
        "poll revoked while it reads",
    ),
    "postgres": (
        *COMMON,
        *_POSTGRES,
        "listening connection lost",
        "memory found to contradict the database",
        "node id renewed after an unknown outcome",
        "notice doubled",
        "notice dropped",
        "poll revoked while it reads",
    ),
    "sharded": (
        *COMMON,
        *_POSTGRES,
        "NATS connection lost",
        "answer lost, and shards moved",
        "answer lost, and worker away",
        "batch sent again after its shards had moved",
        "claims deleted as too old",
        "crash between claim and message",
        "key claimed for another recipient",
        "key refused",
        "key used again after days",
        "shards moved",
        "worker away or back",
    ),
}
"""By database."""


class _Watch(NamedTuple):
    name: str
    owner: Any
    method: str
    is_it: Callable[..., object]


_WATCHED: Final = (
    _Watch(
        "poll woken while it reads", Poll, "_hold", lambda poll: poll._pending is WakeReason.MESSAGE
    ),
    _Watch(
        "poll revoked while it reads",
        Poll,
        "_hold",
        lambda poll: isinstance(poll._pending, Unauthorized),
    ),
    _Watch(
        "stream behind while it is paused",
        MessageStream,
        "_advance",
        lambda stream: stream._paused and stream._unread,
    ),
    _Watch(
        "inbox dropped from memory while it is read",
        InboxCache,
        "drop",
        lambda cache, user_id: cache._open_tickets,
    ),
    _Watch(
        "memory found to contradict the database",
        inbox_cache,
        "_contradict",
        inbox_cache._contradict,
    ),
    _Watch("node id renewed after an unknown outcome", NodeId, "renew", lambda node: node.name),
    _Watch(
        "sweep while the bus is away",
        Sweep,
        "sweep",
        lambda sweep: isinstance(sweep._store, PostgresStore) and not sweep._store._is_notified,
    ),
)


@contextmanager
def watching(reached: Counter[str]) -> Iterator[None]:
    """Count how often the product comes to its rare branches."""
    with ExitStack() as stack:
        for watch in _WATCHED:
            stack.enter_context(patch.object(watch.owner, watch.method, _counting(watch, reached)))
        yield


def _counting(watch: _Watch, reached: Counter[str]) -> Callable[..., Any]:
    original = getattr(watch.owner, watch.method)

    def counting(*args: Any, **options: Any) -> Any:
        if watch.is_it(*args):
            reached[watch.name] += 1
        return original(*args, **options)

    return counting


def never(kind: Kind, reached: Counter[str]) -> list[str]:
    """What has not been reached."""
    return [name for name in SOMETIMES[kind] if not reached[name]]

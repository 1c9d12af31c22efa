"""Bugs that are planted to prove that the simulation finds them: each a patch of the product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from twisted.internet.defer import Deferred

from chatd.bus.local import LocalBus
from chatd.client.caller import Caller
from chatd.domain.batch import Batcher
from chatd.domain.chats import Chats
from chatd.domain.message_stream import MessageStream
from chatd.domain.notifier import Notifier
from chatd.domain.poll import Poll, Polls
from chatd.domain.sessions import SessionCache
from chatd.http.request_reader import RequestReader
from chatd.model import ReadAfter, WakeReason
from chatd.runtime.deadlines import Deadlines
from chatd.store.inbox_cache import InboxCache
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite.store import SqliteStore
from tests.simulation import planted_postgres, planted_sharded
from tests.simulation.database import Kind
from tests.simulation.planting import Patch, nothing, replace


def _wake_before_commit(original: Any, self: Any, drafts: Any, within: float) -> Any:
    self._bus.publish({draft.received_by for draft in drafts})
    for batcher in self._sends._batchers.values():
        batcher._on_batch_done = None
    return original(self, drafts, within)


def _read_before_listening(
    original: Any,
    self: Any,
    session: Any,
    since: Any,
    limit: Any,
    wait: Any,
    sink: Any,
    position: Any = None,
    kind: Any = None,
) -> Any:
    poll = (kind or Poll)(self, session, limit, wait, sink, position)
    after = None if since is None else since.seq
    result = self.read(_query(session, after, limit), listening=wait > 0)

    def begin(inbox: Any) -> None:
        self.notifier.add(poll)
        poll.seq = -1 if after is None else after
        poll.stamp = None if since is None else since.stamp
        poll._on_read(inbox)

    if isinstance(result, Deferred):
        result.addCallback(begin)
    else:
        begin(result)
    return poll


def _query(session: Any, after: Any, limit: Any) -> Any:
    return ReadAfter(session.user_id, after, limit)


def _forget_wake_up(original: Any, self: Any, reason: WakeReason) -> None:
    if self.held or reason is not WakeReason.MESSAGE:
        original(self, reason)


_late_keys: list[Any] = []


def _write_keys_later(original: Any, self: Any) -> None:
    if _late_keys:
        self._db.executemany(sqlite_chats._ADD_KEY + " ON CONFLICT DO NOTHING", _late_keys)
    _late_keys[:], self._new_keys = self._new_keys, []
    original(self)


def _ignore_keys_of_batch(original: Any, self: Any, sender: int, key: str) -> Any:
    self._new_keys = [each for each in self._new_keys if each[:2] != (sender, key)]
    self._keys.pop((sender, key), None)
    return original(self, sender, key)


def _leave_out_first(original: Any, self: Any, messages: Any, why: Any) -> None:
    original(self, messages[1:] if len(messages) > 1 else messages, why)


def _skip_while_paused(original: Any, self: Any) -> None:
    if self._paused and self._unread:
        query = _query(self.session, None, 1)
        inbox = self._read(query, listening=False)
        self.seq = max(self.seq, getattr(inbox, "last_seq", 0))
    original(self)


def _wake_first_only(original: Any, self: Any, user_ids: Any) -> None:
    original(self, sorted(user_ids)[:1])


def _shift_results(original: Any, self: Any, results: Any, batch: Any, items: Any) -> None:
    if isinstance(results, list) and len(results) > 1:
        results = [*results[1:], results[0]]
    original(self, results, batch, items)


def _cache_older_read(original: Any, self: Any, ticket: int, query: Any, inbox: Any) -> None:
    self._remove(query.user_id)
    with patch.object(InboxCache, "_is_outdated", lambda *_: False):
        original(self, ticket, query, inbox)


def _leave_out_last(original: Any, self: Any, ticket: int, messages: Any) -> None:
    messages = list(messages)
    original(self, ticket, messages[:-1] if len(messages) > 1 else messages)


def _number_before_commit(original: Any, *args: Any) -> Any:
    ends = args[3]
    clear, ends.clear = ends.clear, lambda: None
    execute = sqlite_chats._Batch.write

    def write(batch: Any) -> None:
        ends.update(batch.ends)
        execute(batch)

    move = sqlite_chats._move_inboxes

    def move_any(count: int) -> str:
        return move(count).replace(" AND last_seq = column5", "")

    try:
        with (
            patch.object(sqlite_chats._Batch, "write", write),
            patch.object(sqlite_chats, "_move_inboxes", move_any),
        ):
            return original(*args)
    finally:
        ends.clear = clear


async def _new_key(original: Any, self: Any, *args: Any, key: Any = None, **options: Any) -> Any:
    attempts = iter(range(100))
    attempt = self._attempt

    def with_key(*args: Any, **options: Any) -> Any:
        if options.get("key") is not None:
            options["key"] += f"-{next(attempts)}"
        return attempt(*args, **options)

    with patch.object(self, "_attempt", with_key):
        return await original(self, *args, key=key, **options)


def _only_last_part(original: Any, self: Any, data: bytes) -> None:
    self.buffer = data


def _wall_clock(original: Any, self: Any) -> int:
    now: int = self._now()
    return now


PLANTED: Final[dict[str, Patch]] = {
    "waiters are woken before the commit": replace(Chats, "_append", _wake_before_commit),
    "a poll reads before it listens": replace(Polls, "start", _read_before_listening),
    "a wake-up during a read is forgotten": replace(Poll, "wake", _forget_wake_up),
    "keys are written after the commit": replace(sqlite_chats._Batch, "write", _write_keys_later),
    "keys of the same batch are not seen": replace(
        sqlite_chats._Batch, "_get_first_use", _ignore_keys_of_batch
    ),
    "numbers are kept after a rollback": replace(sqlite_chats, "append", _number_before_commit),
    "a poll leaves out a message": replace(Poll, "_end", _leave_out_first),
    "a paused stream goes on at the end": replace(MessageStream, "_advance", _skip_while_paused),
    "waiters stay registered": replace(Notifier, "remove", nothing),
    "held polls stay counted": replace(Notifier, "release", nothing),
    "one recipient of a batch is woken": replace(LocalBus, "publish", _wake_first_only),
    "results of a batch are mixed up": replace(Batcher, "_finish", _shift_results),
    "a revocation ends no poll": replace(Notifier, "revoke", nothing),
    "a revoked session stays cached": replace(SessionCache, "discard", nothing),
    "an older read replaces the cache": replace(InboxCache, "apply_read", _cache_older_read),
    "the cache misses a commit": replace(InboxCache, "apply_commit", _leave_out_last),
    "a client repeats with a new key": replace(Caller, "call", _new_key),
    "parts of a request are lost": replace(RequestReader, "feed", _only_last_part),
    "deadlines are not cancelled": replace(Deadlines, "cancel", nothing),
    "sent_at follows the wall clock": replace(SqliteStore, "_next_time", _wall_clock),
}
"""What is wrong, and the patch that makes it so."""


KINDS: Final[dict[Kind, dict[str, Patch]]] = {
    "sqlite": PLANTED,
    "postgres": planted_postgres.PLANTED,
    "sharded": planted_sharded.PLANTED,
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with one of the bugs."""
    _late_keys.clear()
    with next(bugs[name] for bugs in KINDS.values() if name in bugs)():
        yield

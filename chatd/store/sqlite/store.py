"""The embedded store: SQLite in WAL mode, one writer thread and one reader thread.

A message is durable when `append` succeeds: every commit is synchronised to the disk
(`synchronous=FULL`). Only one daemon may have the database open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.errors import DomainError, StoreUnavailable
from chatd.interfaces import IStore
from chatd.model import (
    Account,
    Appended,
    ConversationSlice,
    Credentials,
    Draft,
    InboxSlice,
    ReadAfter,
    ReadConversation,
    ReadPage,
)
from chatd.runtime.thread_pool import Executor
from chatd.store import statements
from chatd.store.inbox_cache import InboxCache
from chatd.store.migrations import Migration, migrations
from chatd.store.results import stored
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite.file import FileLock, ask, open_reader, open_writer

P = ParamSpec("P")
T = TypeVar("T")

FORGET_KEYS_SECONDS: Final = 60.0
FORGET_STEP: Final = 1000
"""Keys dropped in one transaction: they must not hold up the writer."""

_log = Logger()


@implementer(IStore)
class SqliteStore:
    """An `IStore` in the file `path`, created when missing.

    `worker(name)` makes a one-thread worker; `now` tells microseconds since the Unix epoch.
    """

    epoch: str
    location: str

    def __init__(
        self,
        path: str,
        *,
        clock: IReactorTime,
        now: Callable[[], int],
        worker: Callable[[str], Executor],
        known: list[Migration] | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._now = now
        self._new_worker = worker
        self._known = migrations("sqlite") if known is None else known
        self._lock: FileLock | None = None
        self._newest = 0
        self._inbox_cache = InboxCache()
        self._write_fails = False
        self.location = f"sqlite:{path}"

    def open(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        self._path = os.path.realpath(self._path)
        self.location = f"sqlite:{self._path}"
        # Before any thread and any listener exists: nobody waits for this but the operator.
        self._lock, self._write_db, self.epoch = open_writer(self._path, self._known)
        self._read_db = open_reader(self._path)
        self._newest = sqlite_chats.newest_time(self._read_db)
        self._inbox_cache = InboxCache()
        self._writer = self._new_worker("writer")
        self._reader = self._new_worker("reader")
        self._forgetting = LoopingCall(self._forget_keys)
        self._forgetting.clock = self._clock
        self._forgetting.start(FORGET_KEYS_SECONDS, now=False)
        self._purge()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        self._forgetting.stop()
        # One after the other: of two that close at once each may take the other for the last one.
        await self._reader.run(self._read_db.close)
        await self._writer.run(self._close_writer)
        self._reader.stop()
        self._writer.stop()
        lock.release()

    def _close_writer(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # such as a full disk
            self._write_db.execute("PRAGMA optimize")
        # Leaves one file behind: the last connection to close folds the WAL back in.
        self._write_db.close()

    def check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> None:
        await self._read(_look)
        # After a failed write only a write tells whether the disk is well again.
        await self._write(_touch if self._write_fails else _look)

    def add_account(self, username: str, email: str, password_hash: str) -> Deferred[Account]:
        return self._write(sqlite_accounts.add_account, username, email, password_hash, self._now())

    def account(self, user_id: int) -> Deferred[Account | None]:
        return self._read(ask, statements.account(user_id))

    def account_named(self, username: str) -> Deferred[Account | None]:
        return self._read(ask, statements.account_named(username))

    def credentials(self, username: str) -> Deferred[Credentials | None]:
        return self._read(ask, statements.credentials(username))

    def delete_account(self, user_id: int) -> Deferred[bool]:
        deleted = self._write(sqlite_accounts.delete_account, user_id, self._now())

        def purge(was_there: bool) -> bool:
            self._inbox_cache.drop(user_id)
            if self._lock is not None:
                self._purge()
            return was_there

        def uncertain(failure: Failure) -> Failure:
            self._inbox_cache.drop(user_id)
            return failure

        return deleted.addCallbacks(purge, uncertain)

    def add_token(self, user_id: int, digest: bytes) -> Deferred[int | None]:
        return self._write(ask, statements.add_token(user_id, digest, self._now()))

    def token_owners(self, digests: Sequence[bytes]) -> Deferred[list[int | None]]:
        return self._read(sqlite_accounts.token_owners, digests)

    def delete_token(self, user_id: int, digest: bytes) -> Deferred[bool]:
        return self._write(sqlite_accounts.delete_token, user_id, digest)

    def record_seen(self, seen: Mapping[int, int]) -> Deferred[None]:
        return self._write(sqlite_accounts.record_seen, seen)

    def append(self, drafts: Sequence[Draft]) -> Deferred[list[Appended | DomainError]]:
        ticket = self._inbox_cache.asked()

        def committed(outcomes: list[Appended | DomainError]) -> list[Appended | DomainError]:
            self._inbox_cache.committed(ticket, stored(outcomes))
            return outcomes

        def uncertain(failure: Failure) -> Failure:
            # A commit that failed may be found to have happened, when it was the disk's fault.
            for draft in drafts:
                self._inbox_cache.drop(draft.received_by)
            return failure

        appended = self._write(self._append, drafts).addCallbacks(committed, uncertain)
        return self._answered(ticket, appended)

    def _answered(self, ticket: int, answer: Deferred[T]) -> Deferred[T]:
        def give_back(result: T) -> T:
            self._inbox_cache.answered(ticket)
            return result

        return answer.addBoth(give_back)

    def _append(
        self, db: sqlite3.Connection, drafts: Sequence[Draft]
    ) -> list[Appended | DomainError]:
        # A clock that was set back must not put a new message before an old one.
        self._newest = max(self._newest, self._now())
        return sqlite_chats.append(db, drafts, self._newest)

    def read_cached(
        self, query: ReadAfter | ReadPage, *, listening: bool = False
    ) -> InboxSlice | None:
        return self._inbox_cache.answer(query)

    def read(self, queries: Sequence[ReadAfter | ReadPage]) -> Deferred[list[InboxSlice | None]]:
        ticket = self._inbox_cache.asked()

        def note(inboxes: list[InboxSlice | None]) -> list[InboxSlice | None]:
            for query, inbox in zip(queries, inboxes, strict=True):
                if inbox is not None:
                    self._inbox_cache.found(ticket, query, inbox)
            return inboxes

        return self._answered(ticket, self._read(sqlite_chats.read, queries).addCallback(note))

    def conversation(self, query: ReadConversation) -> Deferred[ConversationSlice | None]:
        return self._read(ask, statements.conversation(query, sqlite_chats.direction))

    def last_seqs(self, user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        return self._read(sqlite_chats.last_seqs, user_ids)

    def _read(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs
    ) -> Deferred[T]:
        return self._reader.run(_guarded, call, self._read_db, *args)

    def _write(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs
    ) -> Deferred[T]:
        return self._writer.run(_guarded, call, self._write_db, *args).addCallbacks(
            self._wrote, self._not_written
        )

    def _wrote(self, result: T) -> T:
        if self._write_fails:
            self._write_fails = False
            _log.info("the database takes writes again")
        return result

    def _not_written(self, failure: Failure) -> Failure:
        if failure.check(StoreUnavailable) and not self._write_fails:
            self._write_fails = True
            _log.error(
                "the database takes no writes: {why}", why=getattr(failure.value, "__cause__", None)
            )
        return failure

    def _purge(self) -> None:
        def again(more: bool) -> None:
            if more and self._lock is not None:
                self._purge()

        self._write(sqlite_accounts.purge).addCallbacks(again, _log_failure)

    def _forget_keys(self) -> None:
        self._purge()

        def again(more: bool) -> None:
            if more and self._lock is not None:
                self._forget_keys()

        forgetting = statements.forget_keys(self._now(), FORGET_STEP)
        self._write(ask, forgetting).addCallbacks(again, _log_failure)


def _look(db: sqlite3.Connection) -> None:
    db.execute("SELECT 1 FROM history").fetchone()


def _touch(db: sqlite3.Connection) -> None:
    db.execute("UPDATE history SET epoch = epoch")


def _guarded(call: Callable[..., T], db: sqlite3.Connection, *args: Any) -> T:
    """Tell faults of the disk (full, gone, read-only) from faults of the program."""
    try:
        return call(db, *args)
    except sqlite3.OperationalError as problem:
        raise StoreUnavailable("the database cannot do this now", 1) from problem


def _log_failure(failure: Failure) -> None:
    _log.failure("housekeeping of the database failed", failure)

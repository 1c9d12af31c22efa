"""SQLite store: a database in WAL mode, used by one thread that writes, one that reads, one that
reads long lists, and one that writes the log back.

Every commit is synchronised to disk (`synchronous=FULL`), so a message is durable once `append`
has succeeded. Only one daemon can open the database.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.errors import DomainError, StoreUnavailable
from chatd.interfaces import IStore
from chatd.model import (
    UNLIMITED,
    Account,
    AccountChange,
    AddedToken,
    Appended,
    ConversationSlice,
    Credentials,
    Draft,
    EncodedRows,
    EncodedTokens,
    Erased,
    InboxLimits,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
    Revision,
    Session,
    Token,
    TokenOptions,
    UserName,
)
from chatd.runtime.pace import Pace
from chatd.runtime.thread_pool import Executor
from chatd.store import statements, token_statements
from chatd.store.inbox_cache import MAX_READS, InboxCache
from chatd.store.known_pairs import KnownPairs
from chatd.store.migrations import Migration, migrations
from chatd.store.results import RANDOM_MICROSECONDS, new_messages
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite import contacts, erasure, revisions
from chatd.store.sqlite.admin_store import SqliteAdminStore
from chatd.store.sqlite.changes import Synchronised
from chatd.store.sqlite.checkpoints import Checkpoints
from chatd.store.sqlite.contacts import ContactRules
from chatd.store.sqlite.database_files import DatabaseFiles
from chatd.store.sqlite.file import open_reader, open_writer
from chatd.store.sqlite.file_lock import FileLock
from chatd.store.sqlite.health import (
    DAMAGED,
    DAMAGED_RETRY_AFTER,
    WriteHealth,
    is_damage,
    probe,
)
from chatd.store.sqlite.housekeeping import Housekeeping, backed_up_at
from chatd.store.sqlite.inbox_ends import InboxEnds
from chatd.store.sqlite.leftover_log import OVERWRITTEN
from chatd.store.sqlite.retention import Retention
from chatd.store.sqlite.sync_store import SqliteSyncStore
from chatd.store.sqlite.transactions import execute
from chatd.store.statements import Statement

P = ParamSpec("P")
T = TypeVar("T")


@implementer(IStore)
class SqliteStore:
    """An `IStore` in the file `path`, which is created if it does not exist.

    `worker(name)` makes an executor with one thread; `now` returns microseconds since the Unix
    epoch. With `known_only`, nobody may write first to anybody. Without `upgrade`, the database
    must exist and have the present schema. Messages older than `keep` microseconds are removed.
    """

    epoch: str
    location: str
    sync: SqliteSyncStore
    # There is one thread for reads, and one for writes. Others have to wait for what it is given.
    # Of long lists, which have a thread, one is read at a time.
    parallel = 2

    def __init__(
        self,
        path: str,
        *,
        clock: IReactorTime,
        now: Callable[[], int],
        worker: Callable[[str], Executor],
        known: list[Migration] | None = None,
        known_only: bool = False,
        limits: InboxLimits | None = None,
        upgrade: bool = True,
        keep: int | None = None,
    ) -> None:
        self._path = path
        self._now = now
        self._new_worker = worker
        self._known = migrations("sqlite") if known is None else known
        self._upgrade = upgrade
        self._lock: FileLock | None = None
        self._inbox_cache = InboxCache()
        self.removed: dict[int, int] = {}
        self.limits = limits or InboxLimits()
        # Used by the writer's thread only.
        self._ends = InboxEnds(self.limits, self.removed)
        self._pairs = KnownPairs()
        self._contacts = ContactRules(known_only)
        self._latest_sent_at = 0
        self._health = WriteHealth()
        self._pace = Pace(clock)
        self._retention = Retention(
            self._write, self._write_paced, self.removed, self._on_removed, self._ends.drop
        )
        self._housekeeping = Housekeeping(
            self._write,
            self._write_paced,
            clock=clock,
            now=now,
            keep=keep,
            remove_old=self._retention.run,
        )
        self.admin = SqliteAdminStore(self._read, self._write, now, self._retention.run)
        self.location = f"sqlite:{path}"

    @property
    def keep(self) -> int | None:
        """See `IStore`."""
        return self._housekeeping.keep

    @keep.setter
    def keep(self, microseconds: int | None) -> None:
        self._housekeeping.keep = microseconds

    def open(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        self._path = os.path.realpath(self._path)
        self.location = f"sqlite:{self._path}"
        # This may block: at startup nothing else is running in the reactor.
        self._lock, self._write_db, self.epoch = open_writer(
            self._path, self._known, upgrade=self._upgrade, shrinks=self.keep is not None
        )
        self._read_db = open_reader(self._path)
        self._list_db = open_reader(self._path)
        # Its pages are in the system's cache.
        self._list_db.execute("PRAGMA cache_size = -8192")
        self._checkpoint_db = open_reader(self._path)
        self._files = DatabaseFiles(self._path, partial(self._lock.note, OVERWRITTEN))
        self._checkpoints = Checkpoints(self._run_checkpoint, self._files.log_pages)
        self._latest_sent_at = sqlite_chats.latest_sent_at(self._read_db)
        self._inbox_cache = InboxCache()
        self._ends.clear()
        self._pairs = KnownPairs()
        self._synchronised = Synchronised(self._read_db, self._next_time)
        self.sync = SqliteSyncStore(self._synchronised, self._read, self._write)
        self._contacts.load(self._read_db)
        self._retention.load(sqlite_chats.removed(self._read_db))
        self._writer = self._new_worker("writer")
        self._reader = self._new_worker("reader")
        self._lister = self._new_worker("lists")
        self._checkpointer = self._new_worker("checkpointer")
        self._housekeeping.backed_up_at = backed_up_at(self._read_db)
        self._housekeeping.start()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        self._housekeeping.stop()
        self._retention.stop()
        self._pace.stop()
        await self._retention.wait_idle()
        await self._housekeeping.wait_idle()
        self._checkpoints.stop()
        await self._checkpoints.wait_idle()
        self._lister.stop()
        # In sequence: the last connection to close merges the WAL into the database, and if some
        # closed at the same time, none might consider itself the last one.
        await self._reader.run(self._read_db.close)
        await self._writer.run(self._close_writer)
        self._files.close()
        for thread in (self._checkpointer, self._reader, self._writer):
            thread.stop()
        lock.release()

    def _close_writer(self) -> None:
        with contextlib.suppress(sqlite3.DatabaseError):  # for example if the disk is full
            self._write_db.execute("PRAGMA optimize")
        self._checkpoint_db.close()
        self._list_db.close()
        self._write_db.close()

    def backed_up_at(self) -> int | None:
        """The moment that the newest backup shows, in microseconds, as of the last minute."""
        return self._housekeeping.backed_up_at

    def file_sizes(self) -> dict[str, float]:
        """The bytes of the database and of its write-ahead log on disk."""
        return {"database": _size(self._path), "wal": _size(self._path + "-wal")}

    def lane(self, user_id: int) -> int:
        """Everything is in one file."""
        return 0

    def check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> None:
        if self._health.is_damaged:
            raise StoreUnavailable(DAMAGED, DAMAGED_RETRY_AFTER)
        # First what says most about what is wrong.
        if self._health.needs_probe:
            await self._write(probe)
            self._health.needs_probe = False
        else:
            await self._write(_check_read)
        await self._read(_check_read)

    def add_account(self, username: str, email: str, password_hash: str) -> Deferred[Account]:
        return self._write(sqlite_accounts.add_account, username, email, password_hash, self._now())

    def account(self, user_id: int) -> Deferred[Account | None]:
        return self._read(execute, statements.account(user_id))

    def account_named(self, username: str) -> Deferred[Account | None]:
        return self._read(execute, statements.account_named(username))

    def credentials(self, username: str) -> Deferred[Credentials | None]:
        return self._read(execute, statements.credentials(username))

    def password_hashes(self, user_ids: Collection[int]) -> Deferred[dict[int, str]]:
        return self._read(sqlite_accounts.password_hashes, user_ids)

    def change_account(self, change: AccountChange) -> Deferred[Account | None]:
        return self._write(sqlite_accounts.change_account, change)

    def find_users(self, prefix: str, limit: int) -> Deferred[list[UserName]]:
        return self._read(execute, statements.find_users(prefix, limit))

    def delete_account(self, user_id: int, *, erase: bool = False) -> Deferred[bool]:
        deleted = self._write(self._delete_account, user_id, self._now(), erase)

        def on_success(existed: bool) -> bool:
            self._inbox_cache.drop(user_id)
            self.removed.pop(user_id, None)
            self._housekeeping.purge()
            return existed

        def on_failure(failure: Failure) -> Failure:
            # It may have been deleted nevertheless, see `append`.
            self._inbox_cache.drop(user_id)
            return failure

        return deleted.addCallbacks(on_success, on_failure)

    def add_token(
        self,
        user_id: int,
        digest: bytes,
        options: TokenOptions = UNLIMITED,
        verified: str | None = None,
    ) -> Deferred[AddedToken | None]:
        addition = token_statements.add(user_id, digest, options, verified, self._now())
        return self._write(sqlite_accounts.add_token, addition)

    def sessions(
        self, digests: Sequence[bytes], owners: Mapping[bytes, int] | None = None
    ) -> Deferred[list[Session | None]]:
        return self._read(sqlite_accounts.sessions, digests, self._now())

    def tokens(self, user_id: int) -> Deferred[list[Token]]:
        query = token_statements.tokens(user_id, self._now(), sqlite_accounts.TOKENS)
        return self._read(execute, query)

    def encoded_tokens(self, user_id: int, current: int | None) -> Deferred[EncodedTokens]:
        return self._list(sqlite_accounts.encoded_tokens(user_id, self._now(), current))

    def delete_token(self, user_id: int, digest: bytes) -> Deferred[bool]:
        parameters = {"user_id": user_id, "digest": digest}
        return self._write(sqlite_accounts.delete_token, token_statements.DELETE, parameters)

    def delete_token_by_id(self, user_id: int, token_id: int) -> Deferred[bool]:
        parameters = {"user_id": user_id, "id": token_id, "now": self._now()}
        return self._write(sqlite_accounts.delete_token, token_statements.DELETE_BY_ID, parameters)

    def delete_other_tokens(self, user_id: int, kept: bytes | None) -> Deferred[None]:
        return self._write(sqlite_accounts.delete_other_tokens, user_id, kept)

    def record_seen(self, users: Mapping[int, int], tokens: Mapping[bytes, int]) -> Deferred[None]:
        return self._write(sqlite_accounts.record_seen, users, tokens)

    def append(
        self, drafts: Sequence[Draft], within: float | None = None
    ) -> Deferred[list[Appended | DomainError]]:
        ticket = self._inbox_cache.begin_query()

        def on_success(results: list[Appended | DomainError]) -> list[Appended | DomainError]:
            self._inbox_cache.apply_commit(ticket, new_messages(results))
            return results

        def on_failure(failure: Failure) -> Failure:
            # After an I/O error a commit that failed may turn out to have succeeded.
            self._inbox_cache.drop_recipients(drafts)
            return failure

        appended = self._write(self._append, drafts).addCallbacks(on_success, on_failure)
        return self._end_query(ticket, appended)

    def _append(
        self, db: sqlite3.Connection, drafts: Sequence[Draft]
    ) -> list[Appended | DomainError]:
        return sqlite_chats.append(
            db,
            drafts,
            self._next_time(),
            self._ends,
            self._contacts,
            self._pairs,
            self._synchronised,
        )

    def _next_time(self) -> int:
        # If the clock was set back, new messages must not get an earlier time than old ones. The
        # random part is for cursors: if the database is set back as well, the messages that
        # take the place of lost ones have other times.
        now = self._now()
        if now < self._latest_sent_at:
            now = self._latest_sent_at + 1 + secrets.randbelow(RANDOM_MICROSECONDS)
        self._latest_sent_at = now
        return now

    def revise(self, revision: Revision) -> Deferred[Message]:
        def on_end(result: T) -> T:
            # Also if it failed: it may have been committed nevertheless, see `append`.
            self._inbox_cache.drop_revised(revision.received_by)
            self._housekeeping.text_removed()
            return result

        return self._write(self._revise, revision).addBoth(on_end)

    def _revise(self, db: sqlite3.Connection, revision: Revision) -> Message:
        return revisions.revise(
            db, revision, self._next_time(), self._contacts, self._synchronised, self._ends
        )

    def erase(self, user_id: int | None = None) -> Deferred[Erased]:
        def on_success(erased: Erased) -> Erased:
            for inbox in {message.received_by for message in erased.messages}:
                self._inbox_cache.drop_revised(inbox)
            if erased.messages:
                self._housekeeping.text_removed()
            return erased

        def on_failure(failure: Failure) -> Failure:
            # It may have been committed nevertheless, see `append`.
            self._inbox_cache.clear()
            return failure

        return self._write(self._erase, user_id).addCallbacks(on_success, on_failure)

    def _erase(self, db: sqlite3.Connection, user_id: int | None) -> Erased:
        return erasure.erase(db, self._synchronised, self._ends, self._next_time(), user_id)

    def remove_oldest(self, user_id: int, up_to: int) -> Deferred[bool | None]:
        return Deferred.fromCoroutine(self._retention.remove_oldest(user_id, up_to))

    def block(self, user_id: int, blocked_id: int) -> Deferred[None]:
        return self._write(self._contacts.block, user_id, blocked_id)

    def unblock(self, user_id: int, blocked_id: int) -> Deferred[None]:
        return self._write(self._contacts.unblock, user_id, blocked_id)

    def blocks(self, user_id: int) -> Deferred[EncodedRows]:
        return self._list(contacts.blocks(user_id))

    def _delete_account(self, db: sqlite3.Connection, user_id: int, now: int, erase: bool) -> bool:
        self._ends.drop(user_id)
        self._synchronised.drop(user_id)
        return sqlite_accounts.delete_account(db, user_id, now, erase)

    def read(
        self, queries: Sequence[ReadAfter | ReadPage], within: float | None = None
    ) -> Deferred[list[InboxSlice | None]]:
        def apply(ticket: int, inboxes: list[InboxSlice | None]) -> None:
            for query, inbox in zip(queries, inboxes, strict=True):
                self._inbox_cache.apply_read(ticket, query, inbox)

        user_ids = [query.user_id for query in queries]
        return self._read_revised(user_ids, apply, sqlite_chats.read, queries)

    def _read_revised(
        self,
        user_ids: Sequence[int],
        apply: Callable[[int, T], object],
        call: Callable[..., T],
        *args: Any,
        attempts: int = MAX_READS,
    ) -> Deferred[T]:
        """Read these inboxes, again if a message of one of them was revised meanwhile."""
        ticket = self._inbox_cache.begin_query()

        def on_success(result: T) -> T | Deferred[T]:
            apply(ticket, result)
            if attempts > 1 and self._inbox_cache.may_be_older(ticket, user_ids):
                return self._read_revised(user_ids, apply, call, *args, attempts=attempts - 1)
            return result

        return self._end_query(ticket, self._read(call, *args).addCallback(on_success))

    def _end_query(self, ticket: int, query: Deferred[T]) -> Deferred[T]:
        def on_result(result: T) -> T:
            self._inbox_cache.end_query(ticket)
            return result

        return query.addBoth(on_result)

    def read_cached(
        self, query: ReadAfter | ReadPage, *, listening: bool = False
    ) -> InboxSlice | None:
        return self._inbox_cache.get(query)

    def conversation(self, query: ReadConversation) -> Deferred[ConversationSlice | None]:
        users = (query.user_id, query.peer)
        return self._read_revised(users, lambda *_: None, sqlite_chats.conversation, query)

    def last_seqs(self, user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        return self._read(sqlite_chats.last_seqs, user_ids)

    def _on_removed(self, user_id: int) -> None:
        """The inbox begins later: what is cached of it may be gone."""
        self._inbox_cache.drop_revised(user_id)

    def _read(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs
    ) -> Deferred[T]:
        reading = self._reader.run(_call, call, self._read_db, *args)
        return reading.addErrback(self._on_read_failed)

    def _list(self, statement: Statement[T]) -> Deferred[T]:
        """Like `_read`, in a thread of its own, for what takes long: polls need not wait for it."""
        listing = self._lister.run(_call, execute, self._list_db, statement)
        return listing.addErrback(self._on_read_failed)

    def _write(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs
    ) -> Deferred[T]:
        return self._writer.run(self._call_writing, call, *args).addCallbacks(
            self._on_written, self._on_write_failed
        )

    async def _write_paced(
        self,
        call: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like `_write`, for a step of work in the background, of which there may be many: others
        have most of the time of the thread, and the disk is given no more than it can take."""

        async def step() -> T:
            await self._checkpoints.wait_idle()
            return await self._write(call, *args, **kwargs)

        return await self._pace.run(step)

    def _run_checkpoint(self, call: Callable[[sqlite3.Connection], bool]) -> Deferred[bool]:
        return self._checkpointer.run(_call, call, self._checkpoint_db)

    def _call_writing(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs
    ) -> T:
        # Before, so that nothing is changed, and again before it is acknowledged.
        self._files.check()
        result = _call(call, self._write_db, *args)
        self._files.check()
        return result

    def _on_read_failed(self, failure: Failure) -> Failure:
        self._health.on_read_failed(failure)
        return failure

    def _on_written(self, result: T) -> T:
        self._health.on_written()
        self._checkpoints.written()
        return result

    def _on_write_failed(self, failure: Failure) -> Failure:
        self._health.on_failed(failure)
        return failure


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _check_read(db: sqlite3.Connection) -> None:
    db.execute("SELECT 1 FROM history").fetchone()


def _call(call: Callable[..., T], db: sqlite3.Connection, *args: Any) -> T:
    """Run `call` in a thread; maps I/O errors (disk full, read-only, ...) to `StoreUnavailable`."""
    try:
        return call(db, *args)
    except sqlite3.OperationalError as problem:
        raise StoreUnavailable("the database cannot do this now", 1) from problem
    except sqlite3.DatabaseError as problem:
        if is_damage(problem):
            raise StoreUnavailable(DAMAGED, DAMAGED_RETRY_AFTER) from problem
        raise

"""The store whose commits a bus announces: the statements without NOTIFY pass their contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from pytest_twisted import async_yield_fixture
from zope.interface import implementer

from chatd.interfaces import IAnnouncer, IStore
from chatd.model import Message
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import OpenStore
from tests.contracts.store_append import AppendContract
from tests.contracts.store_revisions import RevisionsContract
from tests.contracts.store_sync import SyncContract
from tests.postgres_server import Databases
from tests.store.postgres.stores import store_at


class Everybody:
    """The users that are listened to."""

    def __contains__(self, user_id: object) -> bool:
        return True


@implementer(IAnnouncer)
class Announcer:
    """Tells nobody."""

    def announce_messages(self, messages: Sequence[Message]) -> None:
        pass

    def announce_changes(self, user_ids: Collection[int]) -> None:
        pass

    def announce_changed(self, received_by: int, seq: int, sent_by: int) -> None:
        pass

    def announce_revoked(self, user_id: int, token: bytes | None) -> None:
        pass

    def announce_sessions_changed(self, user_id: int) -> None:
        pass

    def announce_removed(self, inboxes: Sequence[tuple[int, int]]) -> None:
        pass

    def announce_unknown(self, user_ids: Collection[int], *, sessions: bool = False) -> None:
        pass


@async_yield_fixture
async def open_store(postgres: Databases, postgres_database: str) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one(**options: Any) -> IStore:
        url = postgres.url(postgres_database)
        opened.append(store_at(url, announcer=Announcer(), listened=Everybody(), **options))
        await opened[-1].open()
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


class TestSilentStore(AppendContract, RevisionsContract, SyncContract):
    """The contracts of what is written differently."""

"""Contract of `IStore`, for the test module of each implementation.

A test module subclasses `StoreContract` and defines the fixture `open_store`: `await open_store()`
returns an open store, and after that was closed, another one on the same database. The fixture
closes open stores after the test. The fixture `copy_database` is a `CopyDatabase`.

The suite assumes neither that calls finish synchronously nor which clock the times are from.
"""

from __future__ import annotations

from tests.contracts.store_accounts import (
    AccountsContract,
    DeletionContract,
    LastSeenContract,
    TokensContract,
)
from tests.contracts.store_admin import AdminContract
from tests.contracts.store_append import AppendContract, FullInboxContract, IdempotencyContract
from tests.contracts.store_contacts import BlocksContract, FirstContactContract
from tests.contracts.store_conversations import ConversationContract
from tests.contracts.store_erasure import ErasureContract
from tests.contracts.store_history import HistoryContract
from tests.contracts.store_lifecycle import LifecycleContract
from tests.contracts.store_read import CachedReadContract, LastSeqsContract, ReadContract
from tests.contracts.store_removal import RemovalContract
from tests.contracts.store_retention import RetentionContract
from tests.contracts.store_revisions import RevisionsContract
from tests.contracts.store_sync import SyncContract
from tests.contracts.store_tokens import ChangeContract, DirectoryContract, TokenListContract


class StoreContract(
    LifecycleContract,
    AccountsContract,
    DeletionContract,
    TokensContract,
    TokenListContract,
    ChangeContract,
    AdminContract,
    DirectoryContract,
    LastSeenContract,
    AppendContract,
    IdempotencyContract,
    FullInboxContract,
    ReadContract,
    CachedReadContract,
    LastSeqsContract,
    ConversationContract,
    SyncContract,
    HistoryContract,
    RevisionsContract,
    RetentionContract,
    RemovalContract,
    ErasureContract,
    BlocksContract,
    FirstContactContract,
):
    """All tests of the contract."""

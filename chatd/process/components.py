"""What a daemon consists of."""

from __future__ import annotations

import attrs

from chatd.domain.account_changes import AccountChanges
from chatd.domain.accounts import Accounts
from chatd.domain.blocks import Blocks
from chatd.domain.chats import Chats
from chatd.domain.conversations import Conversations
from chatd.domain.deliveries import Deliveries
from chatd.domain.disk_space import DiskSpace
from chatd.domain.erasures import Erasures
from chatd.domain.notifier import Notifier
from chatd.domain.passwords import Passwords
from chatd.domain.rate_limits import RateLimits
from chatd.domain.receipts import Receipts
from chatd.domain.removals import Removals
from chatd.domain.revisions import Revisions
from chatd.domain.sweep import Sweep
from chatd.domain.tokens import Tokens
from chatd.interfaces import IBus, IStore, ISubscriber
from chatd.metrics import Metrics
from chatd.process.readiness import Readiness


@attrs.frozen(kw_only=True)
class Components:
    """The components that a `ChatService` starts and stops."""

    store: IStore
    bus: IBus
    subscriber: ISubscriber
    sweep: Sweep
    limits: RateLimits
    disk: DiskSpace
    notifier: Notifier
    passwords: Passwords
    accounts: Accounts
    erasures: Erasures
    account_changes: AccountChanges
    tokens: Tokens
    chats: Chats
    conversations: Conversations
    receipts: Receipts
    deliveries: Deliveries
    revisions: Revisions
    removals: Removals
    blocks: Blocks
    readiness: Readiness
    metrics: Metrics

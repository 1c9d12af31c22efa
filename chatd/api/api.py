"""The calls of the public listener (contract, `/api/v1`).

A new call is a method of one of these classes, declared by `chatd.api.calls.call`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from chatd.api.address import AddressCalls
from chatd.api.authentication import Authenticator
from chatd.api.blocks import BlockCalls
from chatd.api.calls import bind, calls_of, routes
from chatd.api.chats_read import ReadCalls
from chatd.api.chats_revise import RevisionCalls
from chatd.api.chats_send import SendCalls
from chatd.api.client_address import TrustedProxies
from chatd.api.conversations import ConversationCalls
from chatd.api.docs.docs_page import DescriptionCalls
from chatd.api.health import HealthCalls
from chatd.api.rendering import EncodedMessageCache
from chatd.api.tokens import TokenCalls
from chatd.api.users import UserCalls
from chatd.api.web_page import WebPageCalls
from chatd.domain.account_changes import AccountChanges
from chatd.domain.accounts import Accounts
from chatd.domain.address_polls import AddressPolls
from chatd.domain.blocks import Blocks
from chatd.domain.chats import Chats
from chatd.domain.conversations import Conversations
from chatd.domain.receipts import Receipts
from chatd.domain.removals import Removals
from chatd.domain.revisions import Revisions
from chatd.domain.tokens import Tokens


class API:
    """The `chatd.api.calls.Application` of the public listener.

    `ready` returns the reasons why the process is not ready, `retry_jitter` the seconds after
    which a client of a draining server should come back.
    """

    calls: Final = calls_of(
        UserCalls,
        TokenCalls,
        SendCalls,
        ReadCalls,
        ConversationCalls,
        RevisionCalls,
        BlockCalls,
        HealthCalls,
        AddressCalls,
        WebPageCalls,
        DescriptionCalls,
    )
    app: Final = routes(calls)

    def __init__(
        self,
        accounts: Accounts,
        changes: AccountChanges,
        tokens: Tokens,
        chats: Chats,
        conversations: Conversations,
        receipts: Receipts,
        revisions: Revisions,
        removals: Removals,
        blocks: Blocks,
        *,
        ready: Callable[[], Awaitable[list[str]]],
        clock: IReactorTime,
        retry_jitter: Callable[[], int],
        proxies: TrustedProxies,
        address_polls: AddressPolls,
    ) -> None:
        render = EncodedMessageCache()
        self.reads = ReadCalls(
            chats,
            render,
            clock=clock,
            retry_jitter=retry_jitter,
            address_polls=address_polls,
            proxies=proxies,
            touch=accounts.touch,
        )
        self.sends = SendCalls(chats, receipts, render, self.reads, proxies)
        self.handlers = bind(
            Authenticator(accounts, proxies),
            UserCalls(accounts, changes, proxies),
            TokenCalls(accounts, tokens, proxies),
            self.sends,
            self.reads,
            ConversationCalls(conversations, render, clock=clock),
            RevisionCalls(revisions, removals, render, proxies),
            BlockCalls(blocks),
            HealthCalls(ready),
            AddressCalls(proxies),
            WebPageCalls(),
            DescriptionCalls(self.calls),
        )

"""Creates what the listeners serve, on the domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from twisted.internet.interfaces import IReactorTime

from chatd.api.access_log import AccessLog
from chatd.api.admin import Admin
from chatd.api.api import API
from chatd.api.client_address import TrustedProxies
from chatd.api.cors import CORS
from chatd.api.dispatch import Dispatch
from chatd.api.fast_path import FastPath
from chatd.domain.address_polls import AddressPolls
from chatd.http.request_ids import RequestIds
from chatd.process.components import Components

ADDRESS_SHARE: Final = 2
"""One of how many parts of all polls and streams one address may hold, behind proxies."""


class PublicAPI(NamedTuple):
    """What the public listener serves."""

    resource: Dispatch
    fast_path: FastPath


def compose_api(
    components: Components,
    *,
    clock: IReactorTime,
    proxies: TrustedProxies,
    retry_jitter: Callable[[], int],
    access_log: AccessLog | None = None,
    request_ids: RequestIds | None = None,
    cors: CORS | None = None,
) -> PublicAPI:
    """The public listener's resource, and the short way to its frequent calls.

    With `cors`, browser apps of other origins may call the API.
    """
    request_ids = request_ids or RequestIds()
    limits, notifier = components.limits, components.notifier

    def most_polls() -> int | None:
        return -(-notifier.max_held // ADDRESS_SHARE) if limits.enabled else None

    api = API(
        components.accounts,
        components.account_changes,
        components.tokens,
        components.chats,
        components.conversations,
        components.receipts,
        components.revisions,
        components.removals,
        components.blocks,
        ready=components.readiness.reasons,
        clock=clock,
        retry_jitter=retry_jitter,
        proxies=proxies,
        address_polls=AddressPolls(most_polls),
    )
    dispatch = Dispatch(
        api,
        clock=clock,
        metrics=components.metrics,
        access=access_log,
        request_ids=request_ids,
        cors=cors,
    )
    fast_path = FastPath(
        dispatch,
        components.accounts,
        components.chats,
        api.reads,
        api.sends,
        seconds=clock.seconds,
        request_ids=request_ids,
        cors=cors is not None,
    )
    return PublicAPI(dispatch, fast_path)


def compose_admin(components: Components, *, clock: IReactorTime) -> Dispatch:
    """The resource of the operators' listener."""
    admin = Admin(components.metrics, components.readiness.reasons)
    return Dispatch(admin, clock=clock, metrics=components.metrics)

"""How long the calls of a store take, and how often the database fails them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.interface import InterfaceClass, Method

from chatd.errors import DomainError, StoreUnavailable
from chatd.interfaces import IStore, ISyncStore

T = TypeVar("T")

_UNMEASURED: Final = {"open", "close", "read_cached", "lane"}
"""Called once, or without a query."""


def measure(
    store: Any,
    seconds: Callable[[], float],
    observer: Callable[[str], Callable[[float], None]],
    count_error: Callable[[str], None],
) -> None:
    """Have the calls of this store measured from now on.

    `observer` returns, for the name of a method, the observer of its seconds. A call costs two
    readings of the clock: one for a whole batch of messages or reads.
    """

    def wrap(target: Any, interface: InterfaceClass) -> None:
        for name, attribute in interface.namesAndDescriptions():
            if isinstance(attribute, Method) and name not in _UNMEASURED:
                call = getattr(target, name)
                setattr(target, name, measured(name, call, observer(name)))

    def measured(
        name: str, call: Callable[..., Deferred[T]], observe: Callable[[float], None]
    ) -> Callable[..., Deferred[T]]:
        def measure_call(*args: Any, **options: Any) -> Deferred[T]:
            began = seconds()

            def ended(result: T | Failure) -> T | Failure:
                observe(seconds() - began)
                if isinstance(result, Failure) and (
                    result.check(StoreUnavailable) or not result.check(DomainError)
                ):
                    count_error(name)
                return result

            return call(*args, **options).addBoth(ended)

        return measure_call

    def opened(result: T) -> T:
        # The part for the devices of an account exists from now on.
        wrap(store.sync, ISyncStore)
        return result

    wrap(store, IStore)
    store_open = store.open
    store.open = lambda: store_open().addCallback(opened)

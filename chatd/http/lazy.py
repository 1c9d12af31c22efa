"""A descriptor for attributes that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class lazy(Generic[T]):
    """An attribute computed when it is first read, and settable like any other.

    As `functools.cached_property`, without its lock and without the dict that it makes for every
    instance.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, request: object, owner: type) -> T:
        value = self._compute(request)
        setattr(request, self._name, value)
        return value

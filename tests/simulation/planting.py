"""Patches of the product by which bugs are planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

Patch = Callable[[], Any]


def replace(owner: Any, name: str, new: Callable[..., Any]) -> Patch:
    """A patch of an attribute; `new` is called with the original first."""
    original = getattr(owner, name)

    def changed(*args: Any, **options: Any) -> Any:
        return new(original, *args, **options)

    return lambda: patch.object(owner, name, changed)


def nothing(original: object, *args: object, **options: object) -> None:
    """Instead of the original."""

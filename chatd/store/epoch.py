"""Epochs: random names of database histories, which are part of every cursor."""

from __future__ import annotations

import base64
import secrets


def new_epoch() -> str:
    """A new epoch: 80 random bits in base32, as cursors require."""
    return base64.b32encode(secrets.token_bytes(10)).decode("ascii").lower()

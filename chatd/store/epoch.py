"""The name of a database history, which cursors carry."""

from __future__ import annotations

import base64
import secrets


def new_epoch() -> str:
    """A fresh name for a database history: 80 random bits in the alphabet of cursors."""
    return base64.b32encode(secrets.token_bytes(10)).decode("ascii").lower()

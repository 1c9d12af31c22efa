"""Request ids: the X-Request-ID header, which the response and the log repeat."""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Final

from chatd.http.request_headers import values_in_head

HEADER: Final = b"X-Request-ID"

_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_in_head: Final = values_in_head(b"x-request-id")


class RequestIds:
    """Generates ids that are unique across processes: a random prefix and a number."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6).encode("ascii")
        self._numbers = itertools.count(1)

    def of(self, given: bytes | None) -> bytes:
        """The id that the client sent, if it is acceptable, else a new one."""
        if given is not None and _ACCEPTED.fullmatch(given) is not None:
            return given
        return b"%b-%d" % (self._prefix, next(self._numbers))

    def in_head(self, raw: bytes) -> bytes:
        """The id of a rejected request, of which `raw` is as much of the head as was received."""
        found = _in_head(raw)
        return self.of(found[0] if len(found) == 1 else None)

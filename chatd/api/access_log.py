"""The access log: one line per request, with the time it took and the time it was held.

It never contains a body, a query, a password or a token.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from chatd.api.client_address import TrustedProxies
from chatd.api.context import CLIENT_DISCONNECTED, RequestContext
from chatd.domain.poll import DISCONNECTED

_FORMAT = (
    "{client} {method} {path} {status} {length} work={work_ms} hold={hold_ms}"
    " outcome={outcome} request={request_id} user={user_id}"
)

MAX_PATH: Final = 500
"""Bytes of a path that are logged. Each may become five in the log, and anybody may send eight
thousand."""


class AccessLog:
    """Writes events of the namespace `chatd.access`; times are whole milliseconds."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies
        self._log = Logger("chatd.access")

    def write(self, context: RequestContext, work: float) -> None:
        """Log a finished request that took `work` seconds, not counting the time it was held."""
        request = context.request
        self._log.info(
            _FORMAT,
            client=self._proxies.address(request),
            method=_text(request.method),
            path=_path(request.path),
            status=context.status,
            length=request.sentLength,
            work_ms=int(work * 1000),
            hold_ms=int(context.held_seconds * 1000),
            outcome=context.outcome or _outcome(context.status),
            request_id=_text(context.request_id),
            user_id="-" if context.user_id is None else context.user_id,
        )


def _outcome(status: int) -> str:
    return DISCONNECTED if status == CLIENT_DISCONNECTED else "ok"


def _path(octets: bytes) -> str:
    return _text(octets) if len(octets) <= MAX_PATH else _text(octets[:MAX_PATH]) + "..."


def _text(octets: bytes) -> str:
    # A path may contain anything, but must not start a new line of the log.
    return octets.decode("ascii", "backslashreplace").encode("unicode_escape").decode("ascii")

"""The access log: one line a request, with the time of work and the time of waiting apart.

Never a body, a query, a password or a token.
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.web.server import Request

from chatd.api.client_address import TrustedProxies

_FORMAT = (
    "{client} {method} {path} {status} {length} work={work_ms} hold={hold_ms}"
    " request={request_id} user={user_id}"
)

_CALLER = "user_id"


def note_caller(request: Request, user_id: int) -> None:
    """Remember who made the request, for its line in the log."""
    setattr(request, _CALLER, user_id)


class AccessLog:
    """Writes events of the namespace `chatd.access`; times are whole milliseconds."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies
        self._log = Logger("chatd.access")

    def write(
        self, request: Request, request_id: bytes, status: int, work: float, hold: float
    ) -> None:
        """One request was answered with `status`, or its client went away (499)."""
        self._log.info(
            _FORMAT,
            client=self._proxies.address(request),
            method=_text(request.method),
            path=_text(request.path),
            status=status,
            length=request.sentLength,
            work_ms=int(work * 1000),
            hold_ms=int(hold * 1000),
            request_id=_text(request_id),
            user_id=getattr(request, _CALLER, "-"),
        )


def _text(octets: bytes) -> str:
    # A path may hold anything; nothing of it may begin a new line.
    return octets.decode("ascii", "backslashreplace").encode("unicode_escape").decode("ascii")

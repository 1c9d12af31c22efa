"""Exceptions raised by the client."""

from __future__ import annotations


class ChatError(Exception):
    """Base class of all exceptions raised by `chatd.client`."""


class NoTokenError(ChatError):
    """The call needs a token: log in first, or pass one to `ChatClient`."""


class Unreachable(ChatError):
    """No response arrived, or one that did not come from chatd.

    Whether the service acted on the request is unknown, unless `sent` is False: then no
    connection was made and the request was never sent.
    """

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent


class APIError(ChatError):
    """The service responded with an error.

    `code` is stable and meant for programs (`user_not_found`, `rate_limited`, ...; empty if the
    response came from a proxy), `detail` is meant for people. `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{detail} ({status} {code})" if code else f"{detail} ({status})")
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.request_id = request_id

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later (408, 429, 502, 503, 504)."""
        return self.status in (408, 429, 502, 503, 504)

    @property
    def never_handled(self) -> bool:
        """Whether the service had no effect: it limited the rate, or did not get all of it."""
        return self.status in (408, 429)


class NotSupported(ChatError):
    """The service is too old for what was asked."""


class HistoryChanged(APIError):
    """410 `cursor_epoch`: the cursor belongs to another history of the inbox; or `cursor_expired`:
    messages after it are no longer kept, or were removed by the owner of the inbox.

    In the first case, the service's database was set back to an earlier state, for example from a
    backup, and messages that were read are missing from the inbox now, or replaced by others; or
    the cursor is another account's. It stays invalid: start again from `0` or `now`. `follow` calls
    its `on_resync`.
    """


class Gap(ChatError):
    """A message is missing: the next one should have had seq `expected`, but had `found`."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"message {expected} should come next, but {found} came")
        self.expected = expected
        self.found = found

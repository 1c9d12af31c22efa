"""What can go wrong between a client and the service."""

from __future__ import annotations


class ChatError(Exception):
    """Base of everything that `chatd.client` raises."""


class NoTokenError(ChatError):
    """The call needs a token: log in first, or give `ChatClient` one."""


class Unreachable(ChatError):
    """No answer of the service arrived, or what arrived was not one of its answers.

    Whether the service acted on the request is not known. `sent` is False where it is certain
    that the request did not leave: no connection came about.
    """

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent


class APIError(ChatError):
    """The service answered with an error.

    `code` is stable and made for programs (`user_not_found`, `rate_limited`, ...; empty if a
    proxy answered in the service's place), `detail` is for people. `retry_after` is seconds.
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
    def passing(self) -> bool:
        """Whether the same request may succeed later (429, 502, 503, 504)."""
        return self.status in (429, 502, 503, 504)


class HistoryChanged(APIError):
    """410 `cursor_epoch`: the cursor is of another history of the inbox.

    The service was restored from a backup, or the cursor is another account's. What was read
    before may be missing from the inbox now: begin again with `0` or `now`.
    """


class Gap(ChatError):
    """A message is missing: `expected` is the seq that had to come next, `found` what came."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"message {expected} should come next, but {found} came")
        self.expected = expected
        self.found = found

"""Domain errors, each with a stable code (contract, General), and the error of a failed start."""

from __future__ import annotations

from typing import ClassVar


class DomainError(Exception):
    """An error reported to clients: `code` is for programs, `title` and `detail` for people."""

    code: ClassVar[str]
    title: ClassVar[str]

    bound: str = ""
    """The bound that was reached, for the metrics; empty if none was."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidBody(DomainError):
    code = "invalid_body"
    title = "The request body is invalid"


class InvalidQuery(DomainError):
    code = "invalid_query"
    title = "A query parameter is invalid"


class InvalidHeader(DomainError):
    code = "invalid_header"
    title = "A header is invalid"


class UnsupportedMediaType(DomainError):
    code = "unsupported_media_type"
    title = "The request body is not JSON"


class InvalidCursor(DomainError):
    code = "invalid_cursor"
    title = "The cursor is invalid"


class CursorEpoch(DomainError):
    """The cursor is from another history: the inbox ends before it, or has another one there."""

    code = "cursor_epoch"
    title = "The cursor belongs to another history of this inbox"


class CursorExpired(DomainError):
    """Messages after the cursor were removed: they were too old, or the owner of the inbox did."""

    code = "cursor_expired"
    title = "Messages after the cursor are no longer kept"


class Unauthorized(DomainError):
    code = "unauthorized"
    title = "Authentication is required"


class AccountDisabled(Unauthorized):
    """The credentials are right, but an administrator has disabled the account."""

    code = "account_disabled"
    title = "The account is disabled"


class NotAToken(DomainError):
    code = "not_a_token"
    title = "The request was not made with a token"


class WrongPassword(DomainError):
    code = "wrong_password"
    title = "The current password is wrong"


class InsufficientScope(DomainError):
    """The token lacks the scope named `scope`."""

    code = "insufficient_scope"
    title = "The token does not permit this"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs a token with the scope {scope}")
        self.scope = scope


class TokenNotFound(DomainError):
    code = "token_not_found"
    title = "There is no such token"


class DirectoryClosed(DomainError):
    code = "directory_closed"
    title = "Users cannot be searched for"


class RegistrationClosed(DomainError):
    code = "registration_closed"
    title = "Registration is closed"


class UsernameTaken(DomainError):
    code = "username_taken"
    title = "The username is taken"


class UserNotFound(DomainError):
    code = "user_not_found"
    title = "There is no such user"


class MessageNotFound(DomainError):
    code = "message_not_found"
    title = "There is no such message"


class NotTheSender(DomainError):
    code = "not_the_sender"
    title = "Only its sender may change a message"


class MessageDeleted(DomainError):
    code = "message_deleted"
    title = "The message was deleted"


class TooLate(DomainError):
    code = "too_late"
    title = "The message can no longer be changed"


class Blocked(DomainError):
    code = "blocked"
    title = "The recipient has blocked the sender"


class FirstContactClosed(DomainError):
    code = "first_contact_closed"
    title = "The recipient has to write first"


class TooManyBlocks(DomainError):
    code = "too_many_blocks"
    title = "Too many accounts are blocked"


class PageNotFound(DomainError):
    code = "page_not_found"
    title = "There is no such page"


class MessageTooLarge(DomainError):
    code = "message_too_large"
    title = "The message is too large"


class InboxFull(DomainError):
    code = "inbox_full"
    title = "The recipient's inbox is full"
    bound = "inbox_messages"


class InboxStorageFull(DomainError):
    code = "inbox_storage_full"
    title = "The recipient's inbox has no room for the message"
    bound = "inbox_bytes"


class IdempotencyKeyReused(DomainError):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used for another request"


class Busy(DomainError):
    """A temporary error: the request may be repeated after `retry_after` seconds."""

    def __init__(self, detail: str, retry_after: float, bound: str = "") -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.bound = bound


class RateLimited(Busy):
    code = "rate_limited"
    title = "Too many requests"


class Overloaded(Busy):
    code = "overloaded"
    title = "The service is overloaded"


class InsufficientStorage(Busy):
    """The disk is nearly full."""

    code = "insufficient_storage"
    title = "There is no room to store anything"


class StoreUnavailable(Busy):
    """The store is not available, or it is unknown whether a write was committed.

    A write may be repeated safely with the same idempotency key.
    """

    code = "store_unavailable"
    title = "The message store is not available"


class StartError(Exception):
    """The daemon cannot start; the text is one line for the operator."""


class DatabaseInUse(StartError):
    """Another process has the database open, and no second one may."""

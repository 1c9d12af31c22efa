"""The error codes of the API: each with its status, its title, and advice for clients.

Error responses and their description are made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from chatd import errors
from chatd.errors import DomainError


class ErrorCode(Struct, frozen=True):
    """A stable code and what it means."""

    code: str
    status: int
    title: str
    advice: str


class NotReady(DomainError):
    """The response to `GET /readyz` while the process is not ready."""

    code = "not_ready"
    title = "This process should not be sent requests now"

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


_DOMAIN: Final[tuple[tuple[type[DomainError], int, str], ...]] = (
    (errors.InvalidBody, 400, "Fix the body; `detail` names the member that is wrong."),
    (errors.InvalidQuery, 400, "Fix the query; `detail` names the parameter that is wrong."),
    (errors.InvalidHeader, 400, "Fix the header that `detail` names."),
    (errors.InvalidCursor, 400, "Pass cursors on exactly as the service returned them."),
    (
        errors.NotAToken,
        400,
        "The request was authenticated with a password: there is no token to revoke.",
    ),
    (
        errors.Unauthorized,
        401,
        "Log in. A token that worked before was revoked or has expired, or its account was "
        "deleted.",
    ),
    (
        errors.AccountDisabled,
        401,
        "An administrator has disabled the account: stop, and tell its owner.",
    ),
    (errors.WrongPassword, 403, "Send the account's present password as `current_password`."),
    (
        errors.InsufficientScope,
        403,
        "`detail` names the scope. Log in again with it in `scopes`, or without `scopes`.",
    ),
    (
        errors.DirectoryClosed,
        403,
        "The operator has not opened the directory. Look users up by their whole name.",
    ),
    (errors.RegistrationClosed, 403, "Ask the operator for an account."),
    (errors.NotTheSender, 403, "Only who sent a message can edit or delete it."),
    (errors.TooLate, 403, "The operator limits for how long messages can be changed."),
    (
        errors.Blocked,
        403,
        "The recipient does not want messages from the caller. Do not try again.",
    ),
    (
        errors.FirstContactClosed,
        403,
        "On this service nobody can write first: wait until the other has written.",
    ),
    (
        errors.MessageNotFound,
        404,
        "There is no such message, or the caller has neither sent nor received it.",
    ),
    (errors.UserNotFound, 404, "The user does not exist, or exists no longer."),
    (errors.TokenNotFound, 404, "The token was revoked, has expired, or is somebody else's."),
    (errors.PageNotFound, 404, "The inbox ends before this page."),
    (errors.UsernameTaken, 409, "Choose another name. Names of deleted accounts stay taken."),
    (errors.MessageDeleted, 409, "A deleted message stays deleted. Send another one."),
    (errors.TooManyBlocks, 409, "Unblock somebody first."),
    (
        errors.CursorEpoch,
        410,
        "The inbox has another message where the cursor is, or ends before it: the database was "
        "set back to an earlier state, or the cursor is another account's. Start over with "
        "`since=0` or `since=now`.",
    ),
    (
        errors.CursorExpired,
        410,
        "Some messages that came after the cursor are gone: the operator limits for how long they "
        "are kept, or the owner of the inbox has removed them. Start over with `since=0` or "
        "`since=now`.",
    ),
    (errors.MessageTooLarge, 413, "Shorten the message, or send it in parts."),
    (errors.UnsupportedMediaType, 415, "Send `Content-Type: application/json`."),
    (errors.IdempotencyKeyReused, 422, "Use a new key for each message."),
    (errors.RateLimited, 429, "Wait as long as `Retry-After` says."),
    (errors.Overloaded, 503, "Wait as long as `Retry-After` says, then repeat the request."),
    (
        errors.StoreUnavailable,
        503,
        "Wait as long as `Retry-After` says, then repeat the request. A send may have happened: "
        "repeat it with its `Idempotency-Key`.",
    ),
    (
        errors.InboxFull,
        507,
        "The recipient's inbox has as many messages as the operator permits. The recipient can "
        "remove the oldest: `DELETE /api/v1/chats/?up_to=SEQ`.",
    ),
    (
        errors.InboxStorageFull,
        507,
        "The messages of the recipient's inbox have as many bytes as the operator permits. A "
        "shorter one may fit, and the recipient can remove the oldest: "
        "`DELETE /api/v1/chats/?up_to=SEQ`.",
    ),
    (
        errors.InsufficientStorage,
        507,
        "Wait as long as `Retry-After` says. The operator has to make room.",
    ),
    (NotReady, 503, "Send requests to another process; `reasons` tells operators why."),
)

DOMAIN_ERRORS: Final[Mapping[type[DomainError], ErrorCode]] = {
    kind: ErrorCode(kind.code, status, kind.title, advice) for kind, status, advice in _DOMAIN
}
"""By the type of the error that handlers raise."""

BAD_REQUEST: Final = ErrorCode(
    "bad_request", 400, "Bad Request", "The request is not valid HTTP (RFC 9112)."
)
BODY_TOO_LARGE: Final = ErrorCode(
    "body_too_large", 413, "Content Too Large", "Send a smaller body."
)

# Errors of routing and of the HTTP server, outside handlers.
_SERVER: Final = (
    BAD_REQUEST,
    ErrorCode("not_found", 404, "Not Found", "There is nothing at this path."),
    ErrorCode(
        "method_not_allowed", 405, "Method Not Allowed", "`Allow` lists the methods of the path."
    ),
    ErrorCode("request_timeout", 408, "Request Timeout", "Send requests without pauses."),
    BODY_TOO_LARGE,
    ErrorCode("uri_too_long", 414, "URI Too Long", "Shorten the request target."),
    ErrorCode(
        "expectation_failed", 417, "Expectation Failed", "Only 100-continue can be expected."
    ),
    ErrorCode(
        "misdirected_request",
        421,
        "Misdirected Request",
        "The service has another name than the one in `Host`.",
    ),
    ErrorCode("head_too_large", 431, "Request Header Fields Too Large", "Send fewer headers."),
    ErrorCode(
        "internal_error",
        500,
        "Internal Server Error",
        "A fault of the service. Report the `request_id` to its operator.",
    ),
    ErrorCode("not_implemented", 501, "Not Implemented", "The service has no such method."),
    ErrorCode("version_not_supported", 505, "HTTP Version Not Supported", "Use HTTP/1.1."),
)

ERROR_CODES: Final = {
    each.code: each
    for each in sorted(
        (*DOMAIN_ERRORS.values(), *_SERVER), key=lambda each: (each.status, each.code)
    )
}
"""All codes, by code, in the order of statuses."""

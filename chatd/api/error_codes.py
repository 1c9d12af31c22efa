"""Every error code there is: its status, and what a client does about it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from chatd.api.problems import STATUSES, NotReady


class ErrorCode(Struct, frozen=True):
    """A stable code, the status that it comes with, and advice."""

    code: str
    status: int
    title: str
    advice: str


_ADVICE: Final = {
    "invalid_body": "Mend the body; `detail` names the member that is wrong.",
    "invalid_query": "Mend the query; `detail` names the parameter that is wrong.",
    "invalid_header": "Mend the header that `detail` names.",
    "invalid_cursor": "Pass on what the service gave out, unchanged.",
    "not_a_token": "The request was made with a password: there is no token to revoke.",
    "unauthorized": "Log in. A token that worked before was revoked, or its account deleted.",
    "registration_closed": "Ask the operator for an account.",
    "user_not_found": "There is no such user, or there is no more.",
    "page_not_found": "The inbox ends before this page.",
    "username_taken": "Choose another name. Names of deleted accounts stay taken.",
    "cursor_epoch": "The cursor is of another history of the inbox (a restored backup), or of "
    "another account. Begin again with `since=0` or `since=now`.",
    "message_too_large": "Shorten the message, or send it in parts.",
    "unsupported_media_type": "Send `Content-Type: application/json`.",
    "idempotency_key_reused": "Make a key of its own for each message.",
    "rate_limited": "Wait as long as `Retry-After` says.",
    "overloaded": "Wait as long as `Retry-After` says, then repeat.",
    "store_unavailable": "Wait as long as `Retry-After` says, then repeat. A send may have "
    "happened: repeat it with its `Idempotency-Key`.",
    "not_ready": "Send requests to another process; `reasons` tells operators why.",
}

# What is refused before there is a route, by the HTTP side itself.
_TRANSPORT: Final = (
    ErrorCode("bad_request", 400, "Bad Request", "The request is not HTTP as RFC 9112 has it."),
    ErrorCode("not_found", 404, "Not Found", "There is nothing at this path."),
    ErrorCode(
        "method_not_allowed", 405, "Method Not Allowed", "`Allow` names what the path takes."
    ),
    ErrorCode("request_timeout", 408, "Request Timeout", "Send requests without pauses."),
    ErrorCode("body_too_large", 413, "Content Too Large", "Send a smaller body."),
    ErrorCode("uri_too_long", 414, "URI Too Long", "Shorten the request target."),
    ErrorCode(
        "expectation_failed", 417, "Expectation Failed", "Only 100-continue can be expected."
    ),
    ErrorCode("head_too_large", 431, "Request Header Fields Too Large", "Send fewer headers."),
    ErrorCode(
        "internal_error",
        500,
        "Internal Server Error",
        "A fault of the service. Tell its operator the `request_id`.",
    ),
    ErrorCode("not_implemented", 501, "Not Implemented", "The service has no such method."),
    ErrorCode("version_not_supported", 505, "HTTP Version Not Supported", "Speak HTTP/1.1."),
)


def _all() -> dict[str, ErrorCode]:
    domain = [(kind, status) for kind, status in STATUSES.items()] + [(NotReady, 503)]
    codes = [
        *(ErrorCode(kind.code, status, kind.title, _ADVICE[kind.code]) for kind, status in domain),
        *_TRANSPORT,
    ]
    codes.sort(key=lambda each: (each.status, each.code))
    return {each.code: each for each in codes}


ERRORS: Final = _all()
"""By code, in the order of statuses."""

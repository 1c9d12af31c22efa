"""What each route takes and gives: the half of the API description that no code can tell.

The other half, paths and methods, comes from the routes themselves (`chatd.api.docs.openapi`).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from chatd.api import fields, rendering
from chatd.model import MAX_INTEGER

_CURSOR: Final = "[a-z2-7]{8,32}-(0|[1-9][0-9]{0,15})"


class Parameter(Struct, frozen=True):
    """A query parameter or header; `schema` is JSON Schema."""

    name: str
    schema: dict[str, Any]
    description: str
    where: str = "query"


class Gives(Struct, frozen=True):
    """An answer that is no error: its body's type, or types, and what its headers mean."""

    description: str
    shapes: tuple[Any, ...] = ()
    headers: dict[str, str] = {}
    media_type: str = "application/json"


class Operation(Struct, frozen=True):
    """One method of one path."""

    summary: str
    gives: dict[int, Gives]
    description: str = ""
    tag: str = "Chats"
    takes: type | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    public: bool = False


def _whole(name: str, description: str, default: int | None, largest: int) -> Parameter:
    schema: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": largest}
    if default is not None:
        schema["default"] = default
    return Parameter(name, schema, description)


_BODY: Final = ("invalid_body", "unsupported_media_type", "body_too_large")
_BUSY: Final = ("overloaded", "store_unavailable")

OPERATIONS: Final[dict[str, Operation]] = {
    "register": Operation(
        summary="Make an account",
        tag="Users",
        takes=rendering.Registration,
        gives={201: Gives("The account.", (fields.User,), {"Location": "Where the account is."})},
        errors=(*_BODY, "registration_closed", "username_taken", "rate_limited", *_BUSY),
        public=True,
    ),
    "get_user": Operation(
        summary="Look up an account",
        description="The caller's own, unless `user_id` or `username` names another.",
        tag="Users",
        parameters=(
            _whole("user_id", "The account of this id.", None, MAX_INTEGER),
            Parameter(
                "username", {"type": "string"}, "The account of this name, whatever its case."
            ),
        ),
        gives={200: Gives("The account.", (fields.User,))},
        errors=("invalid_query", "user_not_found", *_BUSY),
    ),
    "delete_user": Operation(
        summary="Delete the caller's account",
        description="With its tokens and its inbox. What it sent stays where it was received.",
        tag="Users",
        gives={204: Gives("It is gone.")},
        errors=_BUSY,
    ),
    "log_in": Operation(
        summary="Log in",
        description="Gives a token for `Authorization: Bearer`.",
        tag="Tokens",
        takes=rendering.LogIn,
        gives={201: Gives("The token.", (fields.Token,))},
        errors=(*_BODY, "unauthorized", "rate_limited", *_BUSY),
        public=True,
    ),
    "log_out": Operation(
        summary="Log out",
        description="Revokes the token of the request and ends the polls made with it.",
        tag="Tokens",
        gives={204: Gives("The token is revoked.")},
        errors=("not_a_token", *_BUSY),
    ),
    "send": Operation(
        summary="Send a message",
        description="Answered when the message is durable, not before. With an `Idempotency-Key` "
        "the request can be repeated safely: the message is stored once.",
        takes=rendering.Send,
        parameters=(
            Parameter(
                "Idempotency-Key",
                {"type": "string", "pattern": "^[!-~]{1,255}$"},
                "Any string that is new for each message; remembered for at least 24 hours.",
                "header",
            ),
        ),
        gives={
            201: Gives("The message.", (fields.Message,)),
            200: Gives(
                "The message that an earlier request with this key has stored.",
                (fields.Message,),
                {"Idempotency-Replayed": "`true`"},
            ),
        },
        errors=(
            *_BODY,
            "invalid_header",
            "message_too_large",
            "user_not_found",
            "idempotency_key_reused",
            "rate_limited",
            *_BUSY,
        ),
    ),
    "get_chats": Operation(
        summary="Read messages, or wait for them",
        description="Three questions in one path. A page of the inbox, newest first (`page`, "
        "`limit`, `at`). The long poll, oldest first (`since`, `wait`, `limit`): answered as soon "
        "as there is a message after `since`. A conversation, newest first (`with`, `before`, "
        "`limit`). They cannot be combined.",
        parameters=(
            _whole("page", "Which page, from 1.", 1, MAX_INTEGER),
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": 100},
                "Messages at most: 10 a page, 100 a poll and 50 of a conversation unless given.",
            ),
            Parameter(
                "at",
                {"type": "string", "pattern": f"^{_CURSOR}$"},
                "A cursor: the page of the inbox as it was there.",
            ),
            Parameter(
                "since",
                {"type": "string", "pattern": f"^(0|now|{_CURSOR})$"},
                "A cursor of any earlier answer, `0` (the beginning) or `now`.",
            ),
            Parameter(
                "wait",
                {"type": "string", "pattern": "^[0-9]{1,9}([.][0-9]{1,9})?$"},
                "Seconds to wait for a message, up to 55; more is lowered to that.",
            ),
            _whole(
                "with", "A user's id: what the caller and they sent each other.", None, MAX_INTEGER
            ),
            Parameter(
                "before",
                {"type": "string"},
                "The `older` of an earlier answer: the conversation before that.",
            ),
            Parameter(
                "Prefer",
                {"type": "string"},
                "`wait=N` does what the parameter `wait` does (RFC 7240).",
                "header",
            ),
        ),
        gives={
            200: Gives(
                "A page, the answer of a poll, or a conversation.",
                (fields.Page, fields.Poll, fields.Conversation),
                {
                    "Link": "The next and the previous page, pinned to this moment (RFC 8288).",
                    "Retry-After": "Of an empty poll: ask again after so many seconds.",
                    "Preference-Applied": "The wait that `Prefer` asked for (RFC 7240).",
                },
            )
        },
        errors=(
            "invalid_query",
            "invalid_cursor",
            "page_not_found",
            "user_not_found",
            "cursor_epoch",
            *_BUSY,
        ),
    ),
    "healthz": Operation(
        summary="Whether the process turns",
        tag="Operations",
        gives={200: Gives("It does.", (fields.Health,))},
        public=True,
    ),
    "readyz": Operation(
        summary="Whether the process should be sent requests",
        tag="Operations",
        gives={200: Gives("It should.", (fields.Readiness,))},
        errors=("not_ready",),
        public=True,
    ),
    "get_openapi": Operation(
        summary="This description",
        tag="Operations",
        gives={200: Gives("OpenAPI 3.1.", (Any,))},
        public=True,
    ),
    "get_docs": Operation(
        summary="This description, for people",
        tag="Operations",
        gives={200: Gives("A page.", (str,), media_type="text/html")},
        public=True,
    ),
}
"""By the name of the handler."""

PAGE: Final = frozenset({"get_page", "get_web_file"})
"""Handlers that serve the web page and are no part of the API."""

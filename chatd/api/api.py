"""The routes of the API: parse, call one verb, render (contract, `/api/v1`).

Handlers translate, they do not decide: what is right or wrong is said by
`chatd.domain.accounts` and `chatd.domain.chats`, and what their errors look like by
`chatd.api.problems`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, wraps
from typing import Any, Final

import msgspec
from klein import Response
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import MethodNotAllowed

from chatd.api import problems, rendering
from chatd.api.access_log import note_caller
from chatd.api.client_address import TrustedProxies
from chatd.api.docs import docs_page
from chatd.api.responses import JSONResponse
from chatd.api.routes import on_error, route, routes
from chatd.domain.accounts import Accounts
from chatd.domain.chats import Chats
from chatd.errors import InvalidQuery, Unauthorized
from chatd.model import BEGINNING, ConversationCursor, Cursor, Session, WakeReason
from chatd.page import static_files

MAX_WAIT: Final = 55
"""Seconds; proxies commonly cut a silent connection at 60."""

OVERLOAD_RETRY_AFTER: Final = 5

_REGISTRATION: Final = msgspec.json.Decoder(rendering.Registration)
_LOG_IN: Final = msgspec.json.Decoder(rendering.LogIn)
_SEND: Final = msgspec.json.Decoder(rendering.Send)

_SINCE: Final = {"now": None, "0": BEGINNING}

Handler = Callable[["API", Request], Coroutine[Any, Any, Response]]
SessionHandler = Callable[["API", Request, Session], Coroutine[Any, Any, Response]]


def authenticated(handler: SessionHandler) -> Handler:
    """Find out who is calling and pass their session to the handler; 401 otherwise."""

    @wraps(handler)
    async def with_session(self: API, request: Request) -> Response:
        session = await self.authenticate(request)
        note_caller(request, session.user_id)
        return await handler(self, request, session)

    return with_session


class API:
    """The public listener's routes; `ready` tells why the process is not, if it is not."""

    app: Final = routes()

    def __init__(
        self,
        accounts: Accounts,
        chats: Chats,
        *,
        ready: Callable[[], Awaitable[list[str]]],
        seconds: Callable[[], float],
        retry_jitter: Callable[[], int],
        proxies: TrustedProxies,
    ) -> None:
        self.description = _description()
        self._accounts = accounts
        self._chats = chats
        self._ready = ready
        self._seconds = seconds
        self._retry_jitter = retry_jitter
        self._proxies = proxies
        self._encode = rendering.EncodedMessageCache()

    @route(app, "POST", "/api/v1/users")
    async def register(self, request: Request) -> Response:
        """Make an account."""
        asked = rendering.body(request, _REGISTRATION)
        account = await self._accounts.register(
            asked.username, asked.email, asked.password, self._proxies.address(request)
        )
        location = f"/api/v1/users/?user_id={account.id}"
        return JSONResponse(
            201, rendering.account(account), {b"Location": location.encode("ascii")}
        )

    @route(app, "GET", "/api/v1/users")
    @authenticated
    async def get_user(self, request: Request, session: Session) -> Response:
        """The caller, or the account of an id or a name."""
        asked = rendering.query(request, "user_id", "username")
        if len(asked) > 1:
            raise InvalidQuery("user_id and username cannot be combined")
        if "user_id" in asked:
            account = await self._accounts.by_id(rendering.user_id(asked, "user_id"))
        elif "username" in asked:
            account = await self._accounts.by_name(asked["username"])
        else:
            account = await self._accounts.caller(session)
        return JSONResponse(200, rendering.account(account))

    @route(app, "DELETE", "/api/v1/users")
    @authenticated
    async def delete_user(self, request: Request, session: Session) -> Response:
        """Delete the caller's account."""
        await self._accounts.delete(session)
        return Response(204, {"Cache-Control": "no-store"}, b"")

    @route(app, "POST", "/api/v1/tokens")
    async def log_in(self, request: Request) -> Response:
        """Issue a token."""
        asked = rendering.body(request, _LOG_IN)
        token = await self._accounts.log_in(
            asked.username, asked.password, self._proxies.address(request)
        )
        return JSONResponse(201, rendering.token(token))

    @route(app, "DELETE", "/api/v1/tokens")
    @authenticated
    async def log_out(self, request: Request, session: Session) -> Response:
        """Revoke the token of this request."""
        await self._accounts.log_out(session)
        return Response(204, {"Cache-Control": "no-store"}, b"")

    @route(app, "POST", "/api/v1/chats")
    @authenticated
    async def send(self, request: Request, session: Session) -> Response:
        """Send a message."""
        key = rendering.idempotency_key(request)
        asked = rendering.body(request, _SEND)
        sent = await self._chats.send(session, asked.user_id, asked.message, key)
        if sent.replayed:
            return JSONResponse(200, self._encode(sent.message), {b"Idempotency-Replayed": b"true"})
        return JSONResponse(201, self._encode(sent.message))

    @route(app, "GET", "/api/v1/chats")
    @authenticated
    async def get_chats(self, request: Request, session: Session) -> Response:
        """The page; the conversation if `with` is given; the long poll if `since` or a wait is."""
        asked = rendering.query(request, "since", "wait", "page", "limit", "at", "with", "before")
        if "with" in asked:
            return await self._conversation(session, asked)
        if "before" in asked:
            raise InvalidQuery("before goes together with the parameter with")
        preferred = None
        if "page" not in asked and "at" not in asked and "wait" not in asked:
            preferred = rendering.preferred_wait(request)
        if "since" in asked or "wait" in asked or preferred is not None:
            return await self._poll(session, asked, preferred)
        return await self._page(session, asked)

    async def _page(self, session: Session, asked: dict[str, str]) -> Response:
        began = self._seconds()
        limit = rendering.whole(asked, "limit", 10, 100)
        at = Cursor.parse(asked["at"]) if "at" in asked else None
        page = await self._chats.page(session, rendering.page_number(asked), limit, at)
        links = []
        if page.page < page.pages:
            links.append(_link(page.page + 1, limit, page.cursor, b"next"))
        if page.page > 1:
            links.append(_link(page.page - 1, limit, page.cursor, b"prev"))
        headers = {b"Link": b", ".join(links)} if links else None
        return JSONResponse(
            200, rendering.page(page, self._seconds() - began, self._encode), headers
        )

    async def _poll(
        self, session: Session, asked: dict[str, str], preferred: int | None
    ) -> Response:
        began = self._seconds()
        for name in ("page", "at"):
            if name in asked:
                raise InvalidQuery(f"{name} cannot be combined with since or wait")
        limit = rendering.whole(asked, "limit", 100, 100)
        wait = rendering.seconds(asked, "wait") if "wait" in asked else float(preferred or 0)
        applied = MAX_WAIT if wait > MAX_WAIT else None
        since = asked.get("since", "now")
        cursor = _SINCE[since] if since in _SINCE else Cursor.parse(since)
        polled = await self._chats.poll(session, cursor, limit, min(wait, MAX_WAIT))
        headers = {}
        if preferred is not None:
            headers[b"Preference-Applied"] = b"wait=%d" % min(preferred, MAX_WAIT)
        if polled.why is WakeReason.OVERLOAD:
            headers[b"Retry-After"] = b"%d" % OVERLOAD_RETRY_AFTER
        elif polled.why is WakeReason.DRAIN:
            headers[b"Retry-After"] = b"%d" % self._retry_jitter()
            headers[b"Connection"] = b"close"
        took = self._seconds() - began - polled.waited
        return JSONResponse(
            200, rendering.polled(polled, took, applied, self._encode), headers, polled.waited
        )

    async def _conversation(self, session: Session, asked: dict[str, str]) -> Response:
        began = self._seconds()
        for name in ("page", "at", "since", "wait"):
            if name in asked:
                raise InvalidQuery(f"{name} cannot be combined with the parameter with")
        limit = rendering.whole(asked, "limit", 50, 100)
        before = ConversationCursor.parse(asked["before"]) if "before" in asked else None
        peer = rendering.user_id(asked, "with")
        conversation = await self._chats.conversation(session, peer, limit, before)
        return JSONResponse(
            200, rendering.conversation(conversation, self._seconds() - began, self._encode)
        )

    @route(app, "GET", "/healthz")
    async def healthz(self, request: Request) -> Response:
        """The process turns."""
        return JSONResponse(200, b'{"status":"ok"}')

    @route(app, "GET", "/readyz")
    async def readyz(self, request: Request) -> Response:
        """The process should be sent requests."""
        return await readiness(self._ready)

    get_page = route(app, "GET", "/")(static_files.get_page)
    get_openapi = route(app, "GET", "/api/v1/openapi.json")(docs_page.get_openapi)
    get_docs = route(app, "GET", "/api/v1/docs")(docs_page.get_docs)
    get_web_file = route(app, "GET", "/web/<name>")(static_files.get_web_file)

    @on_error(app)
    def error(self, request: Request, failure: Failure) -> Response:
        """Every failure that Klein meets."""
        return failed(request, failure)

    async def authenticate(self, request: Request) -> Session:
        """The caller's session; raises `Unauthorized`."""
        scheme, _, proof = (request.getHeader(b"authorization") or b"").partition(b" ")
        scheme, proof = scheme.lower(), proof.strip()
        if scheme == b"bearer" and proof:
            return await self._accounts.bearer(proof)
        if scheme == b"basic":
            username, password = _basic(proof)
            return await self._accounts.basic(username, password, self._proxies.address(request))
        raise Unauthorized("send Authorization: Bearer with a token, or Basic")


@cache
def _description() -> docs_page.Description:
    return docs_page.description(API.app)


async def readiness(ready: Callable[[], Awaitable[list[str]]]) -> Response:
    """200 if there is no reason against it, else 503 with the reasons."""
    reasons = await ready()
    if reasons:
        raise problems.NotReady(reasons)
    return JSONResponse(200, b'{"status":"ready"}')


def failed(request: Request, failure: Failure) -> Response:
    """The answer to a request whose handler failed; `OPTIONS` is answered here, too."""
    error = failure.value
    if request.method == b"OPTIONS" and isinstance(error, MethodNotAllowed):
        return Response(204, {"Allow": problems.allowed(error)}, b"")
    [request_id] = request.responseHeaders.getRawHeaders("x-request-id", [""])
    scheme = (request.getHeader(b"authorization") or b"").partition(b" ")[0].lower()
    return problems.respond(failure, request_id, scheme=scheme.decode("latin-1"))


def _basic(proof: bytes) -> tuple[str, str]:
    # RFC 7617; the challenge asks for UTF-8.
    try:
        username, colon, password = b64decode(proof, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthorized("the Basic credentials cannot be read") from None
    if not colon:
        raise Unauthorized("the Basic credentials have no colon")
    return username, password


def _link(page: int, limit: int, at: Cursor, relation: bytes) -> bytes:
    # RFC 8288; pinned, so that the pages do not drift while messages arrive.
    where = (page, limit, str(at).encode("ascii"), relation)
    return b'</api/v1/chats/?page=%d&limit=%d&at=%b>; rel="%b"' % where

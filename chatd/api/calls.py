"""Declarations of the API's calls.

A call is a method of one of the classes `UserCalls`, `SendCalls` ..., decorated with `@call`. Its
Klein route, the parsing of its parameters and body, its authentication, its row in the metrics
and its description all follow from that declaration. The method is given, in this order, what the
call declares: the `RequestContext`, the `Session` of the caller, the parameters, the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from klein import Klein
from msgspec import Struct
from twisted.python.failure import Failure
from twisted.web.server import Request

from chatd import errors
from chatd.api import problems
from chatd.api.bodies import BodyDecoder
from chatd.api.context import RequestContext
from chatd.api.error_codes import BAD_REQUEST, BODY_TOO_LARGE, DOMAIN_ERRORS, ErrorCode
from chatd.api.parameters import Parameters
from chatd.api.responses import Response, as_klein
from chatd.api.unknown_parameters import HEADER, unknown_parameters
from chatd.errors import DomainError
from chatd.model import Scope, Session

BUSY: Final[tuple[type[DomainError], ...]] = (errors.Overloaded, errors.StoreUnavailable)
"""The errors of every call that needs the store."""

Authenticate = Callable[[RequestContext], Awaitable[Session]]
ScopeOf = Callable[[bytes], Scope]
"""The scope that a call needs for a query string, whether that is valid or not."""
Handler = Callable[[RequestContext], Coroutine[Any, Any, Response]]


class ResponseSpec(Struct, frozen=True):
    """A successful response: what it means, the type of its body, and its headers' meaning.

    Several types are alternatives, and so are streams: media types, each with its meaning.
    """

    description: str
    types: tuple[Any, ...] = ()
    headers: Mapping[str, str] = {}
    media_type: str = "application/json"
    streams: Mapping[str, str] = {}


class Call(Struct, frozen=True, eq=False):
    """One method of one path; `name` is that of the Python method. See `call`."""

    name: str
    method: str
    path: str
    implementation: Callable[..., Awaitable[Response]]
    summary: str
    description: str
    tag: str
    parameters: Parameters | None
    body: type[Struct] | None
    responses: Mapping[int, ResponseSpec]
    raises: tuple[type[DomainError], ...]
    authenticated: bool
    scope: Scope | ScopeOf | None
    documented: bool

    @property
    def errors(self) -> list[ErrorCode]:
        """All errors of the call: the declared ones and those of what it declares."""
        raised = {*self.raises, errors.InvalidHeader}
        codes = [BAD_REQUEST]
        if self.authenticated:
            # Too many reads, or wrong passwords with Basic, are refused before the call.
            raised |= {errors.Unauthorized, errors.AccountDisabled, errors.RateLimited}
        if self.scope is not None:
            raised.add(errors.InsufficientScope)
        if self.parameters is not None:
            raised |= self.parameters.errors
        if self.body is not None:
            raised |= {errors.InvalidBody, errors.UnsupportedMediaType}
            codes.append(BODY_TOO_LARGE)
        return [*codes, *(DOMAIN_ERRORS[each] for each in raised)]


def call(
    method: str,
    path: str,
    *,
    summary: str,
    responses: Mapping[int, ResponseSpec],
    description: str = "",
    tag: str = "",
    parameters: Parameters | None = None,
    body: type[Struct] | None = None,
    raises: tuple[type[DomainError], ...] = (),
    authenticated: bool = False,
    scope: Scope | ScopeOf | None = None,
    documented: bool = True,
) -> Callable[[Callable[..., Awaitable[Response]]], Call]:
    """Declare the decorated method as a call.

    `path` has no trailing slash; the call is served with and without one. `raises` are the errors
    that the method raises, without those of authentication, parameters and body. `scope` is what a
    token needs for the call; without it the parameters and the body are not looked at.
    """

    def declare(implementation: Callable[..., Awaitable[Response]]) -> Call:
        return Call(
            implementation.__name__,
            method,
            path,
            implementation,
            summary,
            description,
            tag,
            parameters,
            body,
            responses,
            raises,
            authenticated,
            scope,
            documented,
        )

    return declare


def calls_of(*kinds: type) -> tuple[Call, ...]:
    """The calls declared in the classes."""
    return tuple(each for kind in kinds for each in vars(kind).values() if isinstance(each, Call))


def bind(authenticate: Authenticate | None, *objects: object) -> dict[str, Handler]:
    """The handler of every call of the objects, by the call's name."""
    return {
        each.name: _bound(each, owner, authenticate)
        for owner in objects
        for each in calls_of(type(owner))
    }


def _bound(declared: Call, owner: object, authenticate: Authenticate | None) -> Handler:
    implementation = declared.implementation
    parameters = declared.parameters
    decoder = None if declared.body is None else BodyDecoder(declared.body)
    if declared.authenticated:
        assert authenticate is not None, f"{declared.name} needs authentication"
    else:
        authenticate = None
    scope = declared.scope

    async def handle(context: RequestContext) -> Response:
        arguments: list[Any] = []
        if decoder is None:
            context.take_body()
        if authenticate is not None:
            session = await authenticate(context)
            context.user_id = session.user_id
            if scope is not None:
                session.require(scope if isinstance(scope, Scope) else scope(_query(context)))
            arguments.append(session)
        if parameters is not None:
            arguments.append(_parse(parameters, context))
        if decoder is not None:
            arguments.append(decoder.decode(context.header(b"content-type"), context.take_body()))
        return await implementation(owner, context, *arguments)

    return handle


def _query(context: RequestContext) -> bytes:
    query: bytes = context.request.uri.partition(b"?")[2]
    return query


def _parse(parameters: Parameters, context: RequestContext) -> Any:
    """The parameters of the request. Unknown ones that may be misspelt are told in a header of the
    response, whatever that is."""
    unknown: list[str] = []
    try:
        return parameters.parse(_query(context), context.header_values, unknown)
    finally:
        told = unknown_parameters(unknown, parameters.names) if unknown else None
        if told is not None:
            context.request.setHeader(HEADER, told)


class Application(Protocol):
    """The calls of a listener."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """The declarations."""
        ...

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Their handlers, made by `bind`."""
        ...

    @property
    def app(self) -> Klein:
        """Their routes, made by `routes`."""
        ...


def routes(calls: tuple[Call, ...]) -> Klein:
    """Klein routes for the calls of an `Application`; requests have a `RequestContext` component.

    Paths match exactly, except for a trailing slash.
    """
    app = Klein()
    # By default werkzeug redirects (308) from a path without its final slash, and from `//`.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    for each in calls:
        # Only where the path has no final slash does werkzeug find both spellings for 405, too.
        register: Any = app.route(each.path, methods=[each.method], endpoint=each.name)
        register(_klein_handler(each.name))
    on_error: Any = app.handle_errors(Exception)
    on_error(_klein_error_handler)
    return app


def _klein_handler(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def handle(application: Application, request: Request, **path: str) -> Any:
        context = _context(request)
        context.path_arguments = path
        return as_klein(await application.handlers[name](context))

    return handle


def _klein_error_handler(application: Application, request: Request, failure: Failure) -> Any:
    return problems.response_to(failure, _context(request))


def _context(request: Any) -> RequestContext:
    context = request.getComponent(RequestContext)
    assert isinstance(context, RequestContext)
    return context

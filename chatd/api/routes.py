"""Klein routes as this project registers them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from klein import Klein, Response
from twisted.python.failure import Failure
from twisted.web.server import Request

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Response]])
ErrorHandler = TypeVar("ErrorHandler", bound=Callable[[Any, Request, Failure], Response])


def routes() -> Klein:
    """An empty set of routes whose paths are exact but for their final slash.

    By default werkzeug redirects (308) from a path without its final slash, and from `//` to `/`.
    """
    app = Klein()
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    return app


def route(app: Klein, method: str, path: str) -> Callable[[Handler], Handler]:
    """Serve `method path`, and `path` with a slash added, without a redirect.

    `path` has no final slash: only so does werkzeug find both for 405, too. A route that names
    its method is what makes Klein answer 405 to the others.
    """
    register: Any = app.route(path, methods=[method])

    def add(handler: Handler) -> Handler:
        register(handler)
        return handler

    return add


def on_error(app: Klein) -> Callable[[ErrorHandler], ErrorHandler]:
    """Let one method answer for every failure; the first that is registered wins."""
    register: Any = app.handle_errors(Exception)

    def add(handler: ErrorHandler) -> ErrorHandler:
        register(handler)
        return handler

    return add

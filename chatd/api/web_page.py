"""The web page at `/`, which is no part of the API."""

from __future__ import annotations

from typing import Final

from twisted.web.server import Request
from werkzeug.exceptions import NotFound

from chatd.api.calls import call
from chatd.api.context import RequestContext
from chatd.api.responses import ConstantResponse, Response
from chatd.api.static_responses import StaticResponses
from chatd.page.static_files import FILES, IMMUTABLE_FILES, PAGE, VERSION

_PAGE: Final = StaticResponses(PAGE)
_REVALIDATED: Final = {name: StaticResponses(file) for name, file in FILES.items()}
_IMMUTABLE: Final = {name: StaticResponses(file) for name, file in IMMUTABLE_FILES.items()}


class WebPageCalls:
    """The page and its scripts, styles and images."""

    @call("GET", "/", summary="The web page", responses={}, documented=False)
    async def get_page(self, context: RequestContext) -> Response:
        return _PAGE.to(context.request)

    @call("GET", "/web/<name>", summary="A file of the page", responses={}, documented=False)
    async def get_web_file(self, context: RequestContext) -> Response:
        assert context.path_arguments is not None
        return _response(_REVALIDATED, context.path_arguments["name"], context.request)

    @call(
        "GET",
        "/web/<version>/<name>",
        summary="A file of a version of the page",
        responses={},
        documented=False,
    )
    async def get_versioned_web_file(self, context: RequestContext) -> Response:
        arguments = context.path_arguments
        assert arguments is not None
        # While daemons are upgraded one after the other, one may be asked for another's version.
        files = _IMMUTABLE if arguments["version"] == VERSION else _REVALIDATED
        return _response(files, arguments["name"], context.request)


def _response(files: dict[str, StaticResponses], name: str, request: Request) -> ConstantResponse:
    if name not in files:
        raise NotFound
    return files[name].to(request)

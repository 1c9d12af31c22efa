"""The web page at `/`, which is no part of the API."""

from __future__ import annotations

from typing import Final

from werkzeug.exceptions import NotFound

from chatd.api.calls import call
from chatd.api.context import RequestContext
from chatd.api.responses import Response
from chatd.api.static_responses import StaticResponses
from chatd.page.static_files import FILES

_RESPONSES: Final = {name: StaticResponses(file) for name, file in FILES.items()}


class WebPageCalls:
    """The page and its scripts, styles and images."""

    @call("GET", "/", summary="The web page", responses={}, documented=False)
    async def get_page(self, context: RequestContext) -> Response:
        return _RESPONSES["index.html"].to(context.request)

    @call("GET", "/web/<name>", summary="A file of the page", responses={}, documented=False)
    async def get_web_file(self, context: RequestContext) -> Response:
        assert context.path_arguments is not None
        name = context.path_arguments["name"]
        if name not in _RESPONSES:
            raise NotFound
        return _RESPONSES[name].to(context.request)

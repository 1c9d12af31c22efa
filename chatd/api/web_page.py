"""The web page at `/`, which is no part of the API."""

from __future__ import annotations

from chatd.api.calls import call
from chatd.api.context import RequestContext
from chatd.api.responses import Response
from chatd.page import static_files


class WebPageCalls:
    """The page and its scripts, styles and images."""

    @call("GET", "/", summary="The web page", responses={}, documented=False)
    async def get_page(self, context: RequestContext) -> Response:
        return await static_files.get_page(self, context.request)

    @call("GET", "/web/<name>", summary="A file of the page", responses={}, documented=False)
    async def get_web_file(self, context: RequestContext) -> Response:
        assert context.path_arguments is not None
        name = context.path_arguments["name"]
        return await static_files.get_web_file(self, context.request, name)

"""The resources of a server, and what their responses have in common."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web import server
from twisted.web.resource import IResource, getChildForRequest

from chatd.http.response_head import StandardHeaders


class Site:
    """What resources find as `request.site`, with the part of twisted.web's `Site` they may need.

    `problem(status, code, detail)` renders the body of an error response, problem+json (RFC 9457).
    """

    __slots__ = ("_resource", "problem", "standard_headers")

    displayTracebacks = False

    def __init__(
        self,
        resource: IResource,
        standard_headers: StandardHeaders,
        problem: Callable[[int, str, str], bytes],
    ) -> None:
        self._resource = resource
        self.standard_headers = standard_headers
        self.problem = problem

    def getResourceFor(self, request: server.Request) -> IResource:
        """The resource for `request`: the root if it is a leaf, else as twisted.web finds it."""
        if self._resource.isLeaf:
            return self._resource
        found: IResource = getChildForRequest(self._resource, request)
        return found

"""What handlers return: JSON that the HTTP server writes with one send, or a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import klein
from msgspec import Struct
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from chatd.http.response_head import header_block

Headers = Mapping[str | bytes, str | bytes | Sequence[str | bytes]]

_STANDARD_BLOCK = header_block(
    (b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")
)


class JSONResponse(Struct, frozen=True):
    """A JSON response with `Cache-Control: no-store`; `headers` are additional ones."""

    code: int
    body: bytes
    headers: Mapping[bytes, bytes] | None = None

    @property
    def header_block(self) -> bytes:
        """The header lines, without Content-Length."""
        if not self.headers:
            return _STANDARD_BLOCK
        return _STANDARD_BLOCK + header_block(*self.headers.items())

    def as_klein(self) -> klein.Response:
        """The same as a `klein.Response`, which works on any server."""
        headers: dict[str | bytes, bytes] = {
            b"Content-Type": b"application/json",
            b"Content-Length": b"%d" % len(self.body),
            b"Cache-Control": b"no-store",
        }
        for name, value in (self.headers or {}).items():
            headers[name] = value
        return klein.Response(self.code, headers, self.body)


class ConstantResponse(Struct, frozen=True):
    """A response that is made once; `header_block` has its header lines, without Content-Length."""

    code: int
    body: bytes
    headers: Mapping[bytes, bytes]
    header_block: bytes

    @classmethod
    def of(cls, code: int, body: bytes, headers: Mapping[bytes, bytes]) -> ConstantResponse:
        """Render the headers."""
        return cls(code, body, headers, header_block(*headers.items()))

    def as_klein(self) -> klein.Response:
        """The same as a `klein.Response`."""
        headers: dict[str | bytes, bytes] = dict(self.headers.items())
        if self.body:
            headers[b"Content-Length"] = b"%d" % len(self.body)
        return klein.Response(self.code, headers, self.body)


class StreamResponse(Resource):
    """A response that is written for as long as its client stays.

    `start` is called with a function that it has to call at the end. Klein takes the response for
    a resource to render.
    """

    isLeaf = True

    def __init__(self, start: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.start = start

    def render(self, request: Request) -> int:
        """Start it, as `IResource`."""
        self.start(lambda: None)
        return NOT_DONE_YET


Response = klein.Response | JSONResponse | ConstantResponse | StreamResponse
"""What handlers return."""


def as_klein(response: Response) -> klein.Response | StreamResponse:
    """The response as an object that Klein can return."""
    if isinstance(response, JSONResponse | ConstantResponse):
        return response.as_klein()
    return response


def no_content() -> klein.Response:
    """204, without a body."""
    return klein.Response(204, {"Cache-Control": "no-store"}, b"")


def accepted() -> klein.Response:
    """202, without a body: the work goes on."""
    return klein.Response(202, {"Cache-Control": "no-store"}, b"")

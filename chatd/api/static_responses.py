"""Responses with a static file, made once and sent many times."""

from __future__ import annotations

from twisted.web.server import Request

from chatd.api.responses import ConstantResponse
from chatd.page.static_files import StaticFile


class StaticResponses:
    """The responses to requests for a file."""

    def __init__(self, file: StaticFile) -> None:
        headers = {
            name.encode("ascii"): value.encode("ascii") for name, value in file.headers.items()
        }
        self.file = file
        self._whole = ConstantResponse.of(200, file.body, headers)
        self._not_modified = ConstantResponse.of(304, b"", headers)

    def to(self, request: Request) -> ConstantResponse:
        """The file, or 304 if the client has it."""
        # Bytes: a header may have any, and a str is expected to be UTF-8.
        condition = request.getHeader(b"if-none-match")
        if condition is not None and self.file.is_known(condition.decode("latin-1")):
            return self._not_modified
        return self._whole

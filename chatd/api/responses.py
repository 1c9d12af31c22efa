"""Answers of handlers, in a form that Klein renders and that can be written with one send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from klein import Response

from chatd.http.response_head import header_block

Headers = Mapping[str | bytes, str | bytes | Sequence[str | bytes]]

_BLOCK = header_block((b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store"))


class JSONResponse(Response):
    """A JSON answer that no cache keeps; `waited` are the seconds that its request was held.

    `block` is its header lines, made once for all answers that have no header of their own. It
    is the `whole` of them unless the answer says something about its connection.
    """

    block: bytes
    whole: bool
    waited: float

    def __init__(
        self,
        code: int,
        body: bytes,
        extra: Mapping[bytes, bytes] | None = None,
        waited: float = 0.0,
    ) -> None:
        # Not attrs' own: `headers` are rarely looked at.
        self.__dict__.update(
            code=code, body=body, waited=waited, block=_BLOCK, whole=True, extra=extra
        )
        if extra:
            block = _BLOCK + header_block(*extra.items())
            self.__dict__.update(block=block, whole=b"Connection" not in extra)

    @property
    def headers(self) -> Headers:
        return {
            b"Content-Type": b"application/json",
            b"Content-Length": b"%d" % len(self.body),
            b"Cache-Control": b"no-store",
            **(self.__dict__["extra"] or {}),
        }

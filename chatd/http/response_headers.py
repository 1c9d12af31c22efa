"""The headers that code sets on a response, in the cheapest form that serves."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from chatd.http.response_head import StandardHeaders, canonical, one_line, render


class ResponseHeaders:
    """Headers set by name, one value each; a `twisted.web.http_headers.Headers` only on demand.

    The standard headers are included, unless code sets its own or removes them from `headers`.
    """

    __slots__ = ("_fields", "_headers", "_standard", "cookies")

    def __init__(self, standard: StandardHeaders) -> None:
        self._standard = standard
        self._fields: dict[bytes, bytes] = {}
        # Replaces `_fields` once it exists.
        self._headers: Headers | None = None
        self.cookies: list[bytes] = []
        """Values of Set-Cookie headers."""

    @property
    def headers(self) -> Headers:
        """All headers as twisted.web has them, to be read and changed."""
        if self._headers is None:
            headers = self._headers = Headers()
            for name, value in (*self._standard.fields(), *self._fields.items()):
                headers.setRawHeaders(name, [value])
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers

    def set(self, name: bytes | str, value: bytes | str) -> None:
        """Set a header to one value, whose line breaks become spaces.

        Raises ValueError if `name` is not a token.
        """
        if self._headers is not None:
            self._headers.setRawHeaders(name, [value])
            return
        if isinstance(value, str):
            value = value.encode()
        self._fields[canonical(name)] = one_line(value)

    def get(self, name: bytes) -> bytes | None:
        """The last value of the header with the canonical `name`, or None."""
        if self._headers is None:
            return self._fields.get(name)
        values = self._headers.getRawHeaders(name)
        return values[-1] if values else None

    def remove(self, name: bytes) -> None:
        """Remove the header with the canonical `name`, if it is set."""
        if self._headers is None:
            self._fields.pop(name, None)
        else:
            self._headers.removeHeader(name)

    def block(self) -> bytes:
        """The header lines, without the empty line at their end."""
        if self.cookies:
            self.headers.setRawHeaders(b"Set-Cookie", self.cookies)
        fields = self._fields
        if self._headers is not None or b"Server" in fields or b"Date" in fields:
            return render(self.headers.getAllRawHeaders())
        lines = [b"%b: %b\r\n" % field for field in fields.items()]
        return self._standard.block() + b"".join(lines)

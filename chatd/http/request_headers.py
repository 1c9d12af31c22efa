"""The header lines of a request, parsed once for all requests of a connection that repeat them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from chatd.http.errors import HTTPError, bad_request, repeated_header

# Finds every header that frames the message or the connection in one pass. This is safe on a head
# that llhttp accepted: names start right after CRLF, end at the colon, and no value is folded.
_FRAMING = re.compile(
    rb"\r\n(host|connection|content-length|expect|transfer-encoding):[ \t]*([^\r]*)"
)

# RFC 3986 section 3.2.2 with an optional port, in lower case. The field's grammar allows an empty
# host, but http URIs do not (RFC 9110 section 4.2.1).
_AUTHORITY = re.compile(rb"(?:[a-z0-9._~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?")

# Headers whose values differ between requests that are otherwise alike, and the values for which a
# block need not be parsed again.
_VARYING = re.compile(
    rb"\r\n(?:content-length:[ \t]*([0-9]{1,9})|idempotency-key:[ \t]*([!-~]{1,255}))(?=\r\n)",
    re.IGNORECASE,
)
_LENGTH = re.compile(rb"[0-9]{1,9}")
_KEY = re.compile(rb"[!-~]{1,255}")

MAX_OPTIONS: Final = 100
"""Options of a Connection header: it takes a tenth of a microsecond to look at each."""

_Template = tuple[bytes, bytes, bytes, tuple[re.Pattern[bytes], ...]]
"""What is before, between and after one or two varying values, and the values' patterns."""

# Hosts that were valid: one object for all connections. A server has few names.
_valid_hosts: dict[bytes, bytes] = {}


def values_in_head(name: bytes) -> Callable[[bytes], list[bytes]]:
    """Returns a function that finds the values of a header, named in lower case, in as much of a
    head as was received, whatever follows it."""
    lines = re.compile(rb"\r\n%b:[ \t]*([^\r\n]*)" % name, re.IGNORECASE)

    def find(raw: bytes) -> list[bytes]:
        found: list[bytes] = lines.findall(raw.partition(b"\r\n\r\n")[0])
        return [value.rstrip(b" \t") for value in found]

    return find


def is_authority(value: bytes) -> bool:
    """Whether `value`, in lower case, is a host with an optional port."""
    return _AUTHORITY.fullmatch(value) is not None


class HeaderBlock:
    """The header lines of a request, with those that frame it parsed and the others on demand.

    Most clients repeat the same lines on every request of a connection, so a block is compared by
    its bytes with the one before it and reused. Raises `HTTPError`.
    """

    __slots__ = (
        "_template",
        "_values",
        "block",
        "close",
        "coding",
        "expects",
        "host",
        "keep_alive",
        "length",
        "memo",
    )

    def __init__(self, block: bytes) -> None:
        self.block = block
        """From the CRLF before the first header line to the end of the empty line."""
        self.memo: object = None
        """What the `FastHandler` of the server has found out about the block."""
        self.host: bytes | None = None
        self.length = 0
        self.coding: bytes | None = None
        self.expects = False
        options: list[bytes] = []
        for name, value in _FRAMING.findall(block.lower()):
            if name == b"host":
                if self.host is not None:
                    raise repeated_header(name)
                self.host = value.rstrip(b" \t")
            elif name == b"connection":
                if value.count(b",") >= MAX_OPTIONS:
                    raise bad_request("The Connection header has too many options.")
                options += [option.strip(b" \t") for option in value.split(b",")]
            elif name == b"content-length":
                # llhttp has checked its value, but Python refuses to read thousands of digits.
                self.length = int(value.rstrip(b" \t").lstrip(b"0") or b"0")
            elif name == b"transfer-encoding":
                coding = value.rstrip(b" \t")
                self.coding = coding if self.coding is None else self.coding + b"," + coding
            elif value.rstrip(b" \t") == b"100-continue":
                self.expects = True
            else:
                raise HTTPError(417, "expectation_failed", "Only 100-continue can be expected.")
        if self.host is not None:
            known = _valid_hosts.get(self.host)
            if known is not None:
                self.host = known
            elif not is_authority(self.host):
                raise bad_request("The Host header is not a host.")
            elif len(_valid_hosts) < 100:
                _valid_hosts[self.host] = self.host
        self.close = b"close" in options
        self.keep_alive = b"keep-alive" in options
        self._values: dict[bytes, tuple[bytes, ...]] | None = None
        self._template: _Template | None = None

    def repeated(self, block: bytes) -> HeaderBlock | None:
        """The header lines `block`, if they differ from these at most in the values of
        Content-Length and Idempotency-Key.

        Clients repeat their header lines, but not the lengths and keys of their messages.
        """
        template = self._template
        if template is None:
            template = self._template = self._make_template()
        before, between, after, patterns = template
        if not patterns or not block.startswith(before) or not block.endswith(after):
            return None
        values: Sequence[bytes] = [block[len(before) : len(block) - len(after)]]
        if between:
            first, separator, last = values[0].partition(between)
            if not separator:
                return None
            values = (first, last)
        length = self.length
        for pattern, value in zip(patterns, values, strict=True):
            if pattern.fullmatch(value) is None:
                return None
            if pattern is _LENGTH:
                length = int(value)
        other = HeaderBlock.__new__(HeaderBlock)
        other.block = block
        other.memo = self.memo
        other.host = self.host
        other.length = length
        other.coding = self.coding
        other.expects = self.expects
        other.close = self.close
        other.keep_alive = self.keep_alive
        other._values = None
        other._template = template
        return other

    def _make_template(self) -> _Template:
        matches = list(islice(_VARYING.finditer(self.block), 2))
        patterns = tuple(_LENGTH if match[1] is not None else _KEY for match in matches)
        if not matches or patterns in ((_LENGTH, _LENGTH), (_KEY, _KEY)):
            return b"", b"", b"", ()
        first, last = matches[0], matches[-1]
        before = self.block[: first.start(first.lastindex or 0)]
        between = self.block[first.end() : last.start(last.lastindex or 0)]
        return before, between, self.block[last.end() :], patterns

    def value(self, name: bytes) -> bytes | None:
        """The last value of the header `name`, in any case, or None."""
        values = self.values(name)
        return values[-1] if values else None

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """All values of the header `name`, in any case, in order."""
        known = self._values
        if known is None:
            known = self._values = {}
        values = known.get(name)
        if values is None:
            values = self._find(name)
            # Names come from code; the limit is for code that generates them.
            if len(known) < 100:
                known[name] = values
        return values

    def forget_values(self) -> None:
        """Release what `values` has found; it finds them again."""
        self._values = None

    def _find(self, name: bytes) -> tuple[bytes, ...]:
        block = self.block
        folded = block.lower()
        line = b"\r\n%b:" % name.lower()
        values = []
        start = folded.find(line)
        while start >= 0:
            end = block.find(b"\r\n", start + 2)
            values.append(block[start + len(line) : end].strip(b" \t"))
            start = folded.find(line, end)
        return tuple(values)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Names and values of all lines, in order."""
        lines = self.block[2:-4].split(b"\r\n") if len(self.block) > 4 else ()
        parts = [line.partition(b":") for line in lines]
        return [(name, value.strip(b" \t")) for name, _, value in parts]

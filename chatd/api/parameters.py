"""Query parameters and request headers: declared once, parsed and described from that.

A call lists its parameters as the fields of a struct, each annotated with a `Parameter`:

    class PageQuery(Struct, frozen=True):
        page: Annotated[int, page_number("page", "Page number, from 1.")] = 1

Parsing needs no request, only the raw query string and a function that looks up headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from chatd.errors import DomainError, InvalidCursor, InvalidHeader, InvalidQuery
from chatd.model import MAX_INTEGER, Cursor

_DIGITS: Final = re.compile(r"[0-9]+")
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_KEY: Final = re.compile(r"[!-~]{1,255}")
_PREFERENCE: Final = re.compile(r'\s*wait\s*=\s*("?)([0-9]{1,400})\1\s*(;.*)?', re.IGNORECASE)

MAX_PARAMETERS: Final = 100
"""Parameters in a query, known or not: it takes microseconds to decode each."""
MAX_PREFER: Final = 2000
"""Bytes of `Prefer` that are looked at; longer ones are ignored, as any preference may be."""

HeaderValues = Callable[[bytes], Sequence[bytes]]
"""Returns all values of the request header of a name in lower case, in order."""


class Parameter(Struct, frozen=True):
    """A query parameter or header of a call: its name, JSON Schema, meaning, parser and errors.

    `parse` is given the text of a query parameter, or all values of a header. An absent parameter
    has the default of its field.
    """

    name: str
    description: str
    schema: dict[str, Any]
    parse: Callable[[Any], Any]
    errors: tuple[type[DomainError], ...] = ()
    in_query: bool = True
    overridden_by: str = ""
    """A header is ignored where this query parameter is present."""


def integer(name: str, description: str, maximum: int) -> Parameter:
    """A whole number from 1 to `maximum`, in decimal digits."""
    detail = f"{name}: a whole number from 1 to {maximum}"

    def parse(text: str) -> int:
        # Limits the work of int(): no valid number has more digits.
        if _DIGITS.fullmatch(text) is None or len(text) > 400 or not 1 <= int(text) <= maximum:
            raise InvalidQuery(detail)
        return int(text)

    schema = {"type": "integer", "minimum": 1, "maximum": maximum}
    return Parameter(name, description, schema, parse)


def page_number(name: str, description: str) -> Parameter:
    """A whole number from 1 up; larger ones are lowered to `MAX_INTEGER`."""

    def parse(text: str) -> int:
        digits = text.lstrip("0")
        if _DIGITS.fullmatch(text) is None or not digits:
            raise InvalidQuery(f"{name}: a whole number from 1 up")
        return int(digits) if len(digits) <= 16 else MAX_INTEGER

    schema = {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER}
    return Parameter(name, description, schema, parse)


def seconds(name: str, description: str) -> Parameter:
    """A duration in decimal digits, with or without a fraction."""

    def parse(text: str) -> float:
        if _DECIMAL.fullmatch(text) is None:
            raise InvalidQuery(f"{name}: seconds, as decimal digits with an optional fraction")
        return float(text)

    return Parameter(name, description, {"type": "number", "minimum": 0}, parse)


def choice(name: str, description: str, values: Sequence[str]) -> Parameter:
    """One of several words."""

    def parse(text: str) -> str:
        if text not in values:
            raise InvalidQuery(f"{name}: {' or '.join(values)}")
        return text

    return Parameter(name, description, {"type": "string", "enum": list(values)}, parse)


def flag(name: str, description: str) -> Parameter:
    """`true`, or absent."""

    def parse(text: str) -> bool:
        if text != "true":
            raise InvalidQuery(f"{name}: true, or left out")
        return True

    return Parameter(name, description, {"type": "boolean", "enum": [True]}, parse)


def boolean(name: str, description: str) -> Parameter:
    """`true` or `false`."""
    words = choice(name, description, ("true", "false"))
    schema = {"type": "boolean"}
    return Parameter(name, description, schema, lambda text: words.parse(text) == "true")


def text(name: str, description: str) -> Parameter:
    """Any text."""
    return Parameter(name, description, {"type": "string"}, str)


def prefix(name: str, description: str) -> Parameter:
    """Any text that is not empty."""

    def parse(text: str) -> str:
        if not text:
            raise InvalidQuery(f"{name}: at least one character")
        return text

    return Parameter(name, description, {"type": "string", "minLength": 1}, parse)


def cursor(
    name: str, description: str, parse: Callable[[str], Any], pattern: str | None = None
) -> Parameter:
    """A string from an earlier response; `parse` raises `InvalidCursor`."""
    schema = {"type": "string"} if pattern is None else {"type": "string", "pattern": pattern}
    return Parameter(name, description, schema, parse, (InvalidCursor,))


def _idempotency_key(values: Sequence[bytes]) -> str:
    key = values[0].decode("latin-1")
    if len(values) > 1 or _KEY.fullmatch(key) is None:
        raise InvalidHeader("Idempotency-Key: one, of 1 to 255 visible ASCII characters")
    return key


def _last_event_id(values: Sequence[bytes]) -> Cursor | None:
    if len(values) > 1:
        raise InvalidHeader("Last-Event-ID: one, the id of the last event")
    text = values[0].decode("latin-1")
    return Cursor.parse(text) if text else None


def _preferred_wait(fields: Sequence[bytes]) -> int | None:
    if sum(map(len, fields)) > MAX_PREFER:
        return None
    for field in fields:
        for preference in field.decode("latin-1").split(","):
            if preference.partition("=")[0].strip().lower() == "wait":
                # RFC 7240 section 2: of several, the first counts.
                match = _PREFERENCE.fullmatch(preference)
                return None if match is None else min(int(match[2]), MAX_INTEGER)
    return None


IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    "Any string that is new for each message; remembered for at least 24 hours.",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    _idempotency_key,
    (InvalidHeader,),
    in_query=False,
)

LAST_EVENT_ID: Final = Parameter(
    "Last-Event-ID",
    "The `id` of the last event of a stream, which browsers send when they reconnect. It takes "
    "precedence over `since`.",
    {"type": "string"},
    _last_event_id,
    (InvalidHeader, InvalidCursor),
    in_query=False,
)

PREFERRED_WAIT: Final = Parameter(
    "Prefer",
    "`wait=N` does what the parameter `wait` does (RFC 7240).",
    {"type": "string"},
    _preferred_wait,
    in_query=False,
    overridden_by="wait",
)
"""Whole seconds (section 4.3); None if absent or malformed."""


class _Alternative(Struct, frozen=True):
    """A struct of parameters, prepared for parsing."""

    parameters: list[Parameter]
    defaults: list[Any]
    required: list[str]
    """The query parameters that have no default."""
    query: list[tuple[int, str, Callable[[Any], Any]]]
    """Position, parameter name and parser, in the order of parsing."""
    headers: list[tuple[int, bytes, str, Callable[[Any], Any]]]
    """Position, header name, overriding query parameter and parser."""


def _alternative(kind: type[Struct]) -> _Alternative:
    fields = msgspec.structs.fields(kind)
    parameters: list[Parameter] = [field.type.__metadata__[0] for field in fields]
    numbered = list(enumerate(parameters))
    return _Alternative(
        parameters,
        [None if field.required else field.default for field in fields],
        [
            each.name
            for field, each in zip(fields, parameters, strict=True)
            if field.required and each.in_query
        ],
        # In reverse order, which decides the error that is reported if there are several.
        [(place, each.name, each.parse) for place, each in reversed(numbered) if each.in_query],
        [
            (place, each.name.lower().encode("ascii"), each.overridden_by, each.parse)
            for place, each in numbered
            if not each.in_query
        ],
    )


class Parameters:
    """The parameters of a call: the fields of a struct, or of the one that a request selects.

    `choose` is given the texts of the query parameters that are present, and the headers; it
    returns one of `kinds`, or raises `InvalidQuery` for parameters that cannot be combined.
    """

    def __init__(
        self,
        *kinds: type[Struct],
        choose: Callable[[Mapping[str, str], HeaderValues], type[Struct]] | None = None,
    ) -> None:
        self.kinds = kinds
        self._choose = choose
        self._alternatives = {kind: _alternative(kind) for kind in kinds}
        self.names = frozenset(name for name, (each, _) in self._all().items() if each.in_query)
        """Those of the query parameters."""

    def _all(self) -> dict[str, tuple[Parameter, list[Any]]]:
        """Each parameter by its name, with its defaults."""
        found: dict[str, tuple[Parameter, list[Any]]] = {}
        for alternative in self._alternatives.values():
            for parameter, default in zip(
                alternative.parameters, alternative.defaults, strict=True
            ):
                found.setdefault(parameter.name, (parameter, []))[1].append(default)
        return found

    @property
    def required(self) -> frozenset[str]:
        """The query parameters that every request has to have."""
        return frozenset.intersection(
            *(frozenset(each.required) for each in self._alternatives.values())
        )

    def described(self) -> list[tuple[Parameter, Any]]:
        """Each parameter and its default, headers last.

        The default is None where alternatives have several, or lack the parameter: clients made
        from the description may send each default.
        """
        described = [
            (parameter, defaults[0] if defaults == [defaults[0]] * len(self.kinds) else None)
            for parameter, defaults in self._all().values()
        ]
        return sorted(described, key=lambda each: not each[0].in_query)

    @property
    def errors(self) -> set[type[DomainError]]:
        """What `parse` raises."""
        raised = {error for each, _ in self.described() for error in each.errors}
        return raised | {InvalidQuery} if self.names else raised

    def parse(self, query: bytes, headers: HeaderValues, unknown: list[str] | None = None) -> Any:
        """The struct that the query string and the headers of a request select and fill.

        Raises `InvalidQuery` for a parameter that is missing, repeated or not UTF-8, and what the
        parsers of the parameters raise. Parameters that are not declared are ignored; their names
        are added to `unknown`, also if an error is raised.
        """
        texts = parse_query(query, self.names, unknown) if query else {}
        kind = self.kinds[0] if self._choose is None else self._choose(texts, headers)
        alternative = self._alternatives[kind]
        for name in alternative.required:
            if name not in texts:
                raise InvalidQuery(f"{name}: missing")
        values = alternative.defaults.copy()
        if texts:
            for place, name, parse in alternative.query:
                if name in texts:
                    values[place] = parse(texts[name])
        for place, header, overriding, parse in alternative.headers:
            if overriding not in texts and (found := headers(header)):
                values[place] = parse(found)
        return kind(*values)


def reject(texts: Mapping[str, str], names: Sequence[str], other: str) -> None:
    """Raise `InvalidQuery` for the first of `names` that is combined with `other`."""
    for name in names:
        if name in texts:
            raise InvalidQuery(f"{name} cannot be combined with {other}")


def parse_query(
    query: bytes, names: Collection[str], unknown: list[str] | None = None
) -> dict[str, str]:
    """The texts of the named query parameters that are present; others are ignored, and their
    names are added to `unknown`.

    Raises `InvalidQuery` for one that is repeated or is not UTF-8, and for more parameters than
    `MAX_PARAMETERS`.
    """
    if query.count(b"&") >= MAX_PARAMETERS:
        raise InvalidQuery(f"more than {MAX_PARAMETERS} parameters")
    found: dict[str, str] = {}
    # Few queries have escapes; it is faster to find that out once than for each part.
    plain = query.isascii() and b"%" not in query and b"+" not in query
    decode: Callable[[bytes], str | None] = bytes.decode if plain else _form_text
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        name = decode(key)
        if name is None or name not in names:
            if unknown is not None and name:
                unknown.append(name)
            continue
        if name in found:
            raise InvalidQuery(f"{name}: given more than once")
        value_text = decode(value)
        if value_text is None:
            raise InvalidQuery(f"{name}: not UTF-8")
        found[name] = value_text
    return found


def is_present(query: bytes, name: str) -> bool:
    """Whether there is a query parameter of that name, valid or not, among the first
    `MAX_PARAMETERS`."""
    parts = query.split(b"&", MAX_PARAMETERS)[:MAX_PARAMETERS]
    return any(_form_text(part.partition(b"=")[0]) == name for part in parts)


def _form_text(octets: bytes) -> str | None:
    """Decode application/x-www-form-urlencoded text (WHATWG URL); None if it is not UTF-8."""
    if b"%" in octets or b"+" in octets:
        octets = unquote_to_bytes(octets.replace(b"+", b" "))
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None

"""`/api/v1/openapi.json` and `/api/v1/docs`: the API description, for programs and for people."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

import msgspec
from msgspec import Struct

from chatd.api import unknown_parameters
from chatd.api.calls import Call, ResponseSpec, call
from chatd.api.context import RequestContext
from chatd.api.docs import openapi
from chatd.api.error_codes import ERROR_CODES, ErrorCode
from chatd.api.responses import Response
from chatd.api.static_responses import StaticResponses
from chatd.page.static_files import StaticFile

EXAMPLES: Final = (("curl", "session.sh"), ("Python", "session.py"), ("JavaScript", "session.js"))

_AUTHENTICATION: Final = (
    "Send `Authorization: Bearer TOKEN` with a token of `POST /api/v1/tokens/`, or `Basic` with "
    "username and password. Bodies are JSON in UTF-8 and need `Content-Type: application/json`. "
    "Every path may also be written with a final slash. Unknown query parameters are ignored; if "
    "one is probably misspelt, the response says so in the header "
    f"`{unknown_parameters.HEADER.decode()}`."
)
_EXAMPLES: Final = "Each is a whole session: two accounts, messages, a long poll, a stream."
_ERRORS: Final = (
    "Errors are `application/problem+json` (RFC 9457). Programs match on `code`, which is stable."
)

_CODE: Final = re.compile(r"`([^`]*)`")


class Description(Struct, frozen=True):
    """The description as JSON and as a page, as they are served."""

    json: StaticResponses
    page: StaticResponses


@cache
def describe(calls: tuple[Call, ...]) -> Description:
    """The description of those calls that are documented."""
    document = openapi.document([each for each in calls if each.documented])
    return Description(
        StaticResponses(
            StaticFile.of("openapi.json", msgspec.json.encode(document) + b"\n"),
        ),
        StaticResponses(StaticFile.of("docs.html", _page(document).encode())),
    )


class DescriptionCalls:
    """The calls that describe the API."""

    def __init__(self, calls: tuple[Call, ...]) -> None:
        self._description = describe(calls)

    @call(
        "GET",
        "/api/v1/openapi.json",
        summary="This description",
        tag="Operations",
        responses={200: ResponseSpec("OpenAPI 3.1.", (Any,))},
    )
    async def get_openapi(self, context: RequestContext) -> Response:
        return self._description.json.to(context.request)

    @call(
        "GET",
        "/api/v1/docs",
        summary="This description, for people",
        tag="Operations",
        responses={200: ResponseSpec("A page.", (str,), media_type="text/html")},
    )
    async def get_docs(self, context: RequestContext) -> Response:
        return self._description.page.to(context.request)


def example(name: str) -> str:
    """The text of an example, as the page shows it."""
    return files(__package__).joinpath("examples", name).read_text("utf-8")


def _page(document: dict[str, Any]) -> str:
    calls = [
        (path, method, call)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    ]
    schemas = {
        name: _members(name, schema) for name, schema in document["components"]["schemas"].items()
    }
    sections = []
    for tag in document["tags"]:
        name = tag["name"]
        mine = [_call(*each, schemas) for each in calls if each[2]["tags"] == [name]]
        sections.append(f'<h2 id="{name.lower()}">{name}</h2>\n' + "\n".join(mine))
    links = [f'<a href="#{tag["name"].lower()}">{tag["name"]}</a>' for tag in document["tags"]]
    examples = [
        f"<h3>{escape(title)}</h3>\n"
        f'<pre tabindex="0" data-example="{name}"><code>{escape(example(name))}</code></pre>'
        for title, name in EXAMPLES
    ]
    info = document["info"]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>chatd API {info["version"]}</title>
<link rel="icon" href="/web/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/web/docs.css">
</head>
<body>
<header>
<h1><img src="/web/icon.svg" alt="" width="40" height="40"> chatd API
<small>{info["version"]}</small></h1>
<p>{_text(info["description"])}</p>
<nav aria-label="Contents"><a href="#examples">Examples</a> {" ".join(links)}
<a href="#errors">Errors</a> <a href="/api/v1/openapi.json">openapi.json</a>
<a href="/">Chat</a></nav>
</header>
<main>
<h2 id="authentication">Who is calling</h2>
<p>{_text(_AUTHENTICATION)}</p>
<h2 id="examples">Examples</h2>
<p>{_text(_EXAMPLES)}</p>
{"".join(examples)}
{"".join(sections)}
<h2 id="errors">Errors</h2>
<p>{_text(_ERRORS)}</p>
<dl>
{"".join(_error(each) for each in ERROR_CODES.values())}
</dl>
</main>
</body>
</html>
"""


def _call(path: str, method: str, call: dict[str, Any], schemas: dict[str, str]) -> str:
    parts = [
        f'<section class="call" id="{call["operationId"]}">',
        f'<h3><code class="{method}">{method.upper()}</code> <code>{escape(path)}</code></h3>',
        f"<p><strong>{_text(call['summary'])}.</strong> {_text(call.get('description', ''))}</p>",
    ]
    if call["security"]:
        scope = "".join(
            f" of the scope <code>{each}</code>" for each in call["security"][0]["token"]
        )
        parts.append(f"<p>Needs a token{scope} or a password.</p>")
    if "requestBody" in call:
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"<h4>Takes</h4><p><code>{escape(_named(schema, schemas))}</code></p>")
    if parameters := call.get("parameters"):
        rows = [
            f"<tr><th scope=row><code>{escape(each['name'])}</code></th>"
            f"<td>{escape(_limits(each['schema']))}</td><td>{_text(each['description'])}</td></tr>"
            for each in parameters
        ]
        parts.append(f'<div class="wide"><table>{"".join(rows)}</table></div>')
    rows = [_response(status, response, schemas) for status, response in call["responses"].items()]
    parts.append(
        f'<h4>Responses</h4><div class="wide"><table>{"".join(rows)}</table></div></section>'
    )
    return "\n".join(parts)


def _response(status: str, response: dict[str, Any], schemas: dict[str, str]) -> str:
    meaning, body = _text(response["description"]), ""
    if int(status) >= 400:
        meaning = _linked(response["description"])
    else:
        for content in response.get("content", {}).values():
            body = _named(content["schema"], schemas)
    cells = f"<td>{meaning}</td><td><code>{escape(body)}</code></td>"
    return f"<tr><th scope=row>{status}</th>{cells}</tr>"


def _named(schema: dict[str, Any], schemas: dict[str, str]) -> str:
    """The name of a schema, with its members if it is one of the document's."""
    if "anyOf" in schema:
        return " | ".join(_named(each, schemas) for each in schema["anyOf"])
    name: str = schema.get("$ref", "").rpartition("/")[2]
    return schemas.get(name, name)


def _members(name: str, schema: dict[str, Any]) -> str:
    properties = ", ".join(f'"{each}"' for each in schema.get("properties", {}))
    return f"{name} {{{properties}}}"


def _limits(schema: dict[str, Any]) -> str:
    words = [schema["type"]]
    if "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']}")
    elif "minimum" in schema:
        words.append(f"{schema['minimum']} or more")
    if "default" in schema:
        words.append(f"default {schema['default']}")
    return ", ".join(words)


def _error(error: ErrorCode) -> str:
    return (
        f'<dt id="{error.code}"><code>{error.code}</code> {error.status}</dt>'
        f"<dd>{_text(error.title)}. {_text(error.advice)}</dd>\n"
    )


def _text(text: str) -> str:
    """Text with `code` in it, as HTML."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def _linked(text: str) -> str:
    return _CODE.sub(r'<a href="#\1"><code>\1</code></a>', escape(text, quote=False))

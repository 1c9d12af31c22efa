"""The API description, OpenAPI 3.1, made from the declarations of the calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from inspect import cleandoc
from typing import Any, Final

import msgspec

from chatd import __version__
from chatd.api import unknown_parameters
from chatd.api.calls import Call, ResponseSpec
from chatd.api.error_codes import ERROR_CODES, ErrorCode
from chatd.api.parameters import Parameter
from chatd.api.problems import Problem
from chatd.errors import Overloaded, RateLimited, StoreUnavailable, Unauthorized
from chatd.http.request_ids import HEADER
from chatd.model import Scope, scope_names

_SCHEMA: Final = "#/components/schemas/{name}"
_HEADER: Final = "#/components/headers/{name}"
_REQUEST_ID: Final = HEADER.decode("ascii")
_UNKNOWN_PARAMETER: Final = unknown_parameters.HEADER.decode("ascii")
_HEADERS: Final = {
    _REQUEST_ID: "The id of the request, which the log of the service names, too: the one that the "
    "client sent, or a new one.",
    _UNKNOWN_PARAMETER: unknown_parameters.DESCRIPTION,
}
"""Headers of many responses."""

_BUSY: Final = {RateLimited.code, Overloaded.code, StoreUnavailable.code}

_TAGS: Final = {
    "Users": "Accounts: register, look up, change, delete.",
    "Tokens": "Log in and out; list and revoke what is logged in.",
    "Chats": "Send, read, wait for, edit and delete messages.",
    "Conversations": "With whom one has exchanged messages, and how far they are read.",
    "Blocks": "Whose messages are refused.",
    "Operations": "Health of the process, and this description.",
}

_INTRODUCTION: Final = (
    "Direct messages between accounts, with a long poll: `GET /api/v1/chats/` can wait until a "
    "message arrives. A message that was answered 201 is durable; a client that passes each "
    "cursor on sees every message once and in order, whatever happens to connections."
)


def document(calls: Sequence[Call]) -> dict[str, Any]:
    """The description of the calls."""
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for call in calls:
        paths[call.path][call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatd",
            "version": __version__,
            "summary": "A long-polling chat daemon",
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [_tag(name) for name in dict.fromkeys(call.tag for call in calls)],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": json_schemas(calls),
            "headers": {
                name: {"description": meaning, "schema": {"type": "string"}}
                for name, meaning in _HEADERS.items()
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _tag(name: str) -> dict[str, str]:
    described = {"description": _TAGS[name]} if name in _TAGS else {}
    return {"name": name, **described}


def json_schemas(calls: Sequence[Call]) -> dict[str, Any]:
    """The JSON Schema of every type that requests and responses of the calls have.

    Unknown members of requests are refused. Those of responses are not excluded, so that clients
    made from the description can read the responses of later versions.
    """
    types: list[Any] = [Problem]
    for call in calls:
        types += [each for spec in call.responses.values() for each in spec.types]
        types += [] if call.body is None else [call.body]
    _, found = msgspec.json.schema_components(types, ref_template=_SCHEMA)
    found["Problem"]["properties"]["code"]["enum"] = list(ERROR_CODES)
    requests = {call.body.__name__ for call in calls if call.body is not None}
    for name, schema in found.items():
        if name not in requests:
            schema.pop("additionalProperties", None)
        if "description" in schema:
            # In Markdown, indented text is code.
            schema["description"] = cleandoc(schema["description"])
        for each in schema.get("properties", {}).values():
            # Generators take a member that has a default for one that is always there.
            if "default" in each and each["default"] is None:
                del each["default"]
    return dict(sorted(found.items()))


def _operation(call: Call) -> dict[str, Any]:
    responses = {str(status): _response(spec) for status, spec in call.responses.items()}
    for status, codes in sorted(_by_status(call.errors).items()):
        responses[str(status)] = _errors(codes)
    common = [_REQUEST_ID]
    if call.parameters is not None and call.parameters.names:
        common.append(_UNKNOWN_PARAMETER)
    for response in responses.values():
        headers = response.setdefault("headers", {})
        headers.update({name: {"$ref": _HEADER.format(name=name)} for name in common})
    described: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        "tags": [call.tag],
        "responses": responses,
        "security": _security(call),
    }
    if call.description:
        described["description"] = call.description
    if call.parameters is not None:
        described["parameters"] = [
            _parameter(parameter, default, parameter.name in call.parameters.required)
            for parameter, default in call.parameters.described()
        ]
    if call.body is not None:
        schema = {"$ref": _SCHEMA.format(name=call.body.__name__)}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _security(call: Call) -> list[dict[str, list[str]]]:
    """Who may call: OpenAPI 3.1 has scopes of bearer tokens as "role names"."""
    if not call.authenticated:
        return []
    scopes = scope_names(call.scope) if isinstance(call.scope, Scope) else []
    return [{"token": [*scopes]}, {"password": []}]


def _parameter(parameter: Parameter, default: Any, required: bool) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": "query" if parameter.in_query else "header",
        "description": parameter.description,
        "schema": parameter.schema if default is None else {**parameter.schema, "default": default},
    }
    return {**described, "required": True} if required else described


def _response(spec: ResponseSpec) -> dict[str, Any]:
    response: dict[str, Any] = {"description": spec.description}
    if spec.types:
        found, _ = msgspec.json.schema_components(spec.types, ref_template=_SCHEMA)
        schema = found[0] if len(found) == 1 else {"anyOf": list(found)}
        response["content"] = {spec.media_type: {"schema": schema}}
    for media_type, meaning in spec.streams.items():
        schema = {"type": "string", "description": meaning}
        response.setdefault("content", {})[media_type] = {"schema": schema}
    if spec.headers:
        response["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in spec.headers.items()
        }
    return response


def _by_status(errors: Iterable[ErrorCode]) -> dict[int, list[ErrorCode]]:
    found: dict[int, list[ErrorCode]] = defaultdict(list)
    for error in sorted(errors, key=lambda each: each.code):
        found[error.status].append(error)
    return found


def _errors(errors: list[ErrorCode]) -> dict[str, Any]:
    codes = [error.code for error in errors]
    restriction = {"properties": {"code": {"enum": codes}}}
    schema = {"allOf": [{"$ref": _SCHEMA.format(name=Problem.__name__)}, restriction]}
    response: dict[str, Any] = {
        "description": "; ".join(f"`{error.code}`: {error.title}" for error in errors),
        "content": {"application/problem+json": {"schema": schema}},
    }
    names = ["Retry-After"] if _BUSY & set(codes) else []
    if Unauthorized.code in codes:
        names = ["WWW-Authenticate"]
    if names:
        response["headers"] = {name: {"schema": {"type": "string"}} for name in names}
    return response

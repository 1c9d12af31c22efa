"""The API description, OpenAPI 3.1, made of the routes and types that serve.

A route without a row in `OPERATIONS` or a row without a route stops the daemon's start: the two
cannot drift apart.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import msgspec
from klein import Klein

from chatd import __version__
from chatd.api import fields
from chatd.api.docs.operations import OPERATIONS, PAGE, Gives, Operation, Parameter
from chatd.api.error_codes import ERRORS

_COLLECTIONS: Final = ("/users", "/tokens", "/chats", "/docs")
_SCHEMA: Final = "#/components/schemas/{name}"

_INTRODUCTION: Final = (
    "Direct messages between accounts, with a long poll: `GET /api/v1/chats/` can wait until a "
    "message arrives. A message that was answered 201 is durable; a client that passes each "
    "cursor on sees every message once and in order, whatever happens to connections."
)


def document(app: Klein) -> dict[str, Any]:
    """The description of all routes of `app`; raises ValueError where routes and rows differ."""
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    described = set()
    for rule in app.url_map.iter_rules():
        name = rule.endpoint
        if name in PAGE:
            continue
        if name not in OPERATIONS:
            raise ValueError(f"{rule.rule}: the handler {name} has no row in OPERATIONS")
        described.add(name)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            paths[_path(rule.rule)][method.lower()] = _operation(name, OPERATIONS[name])
    if missing := OPERATIONS.keys() - described:
        raise ValueError(f"no route is served by {', '.join(sorted(missing))}")
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
        "tags": [{"name": name} for name in ("Users", "Tokens", "Chats", "Operations")],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": json_schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _path(rule: str) -> str:
    """The path as the contract writes it: collections with their final slash."""
    return rule + "/" if rule.endswith(_COLLECTIONS) else rule


def _operation(name: str, row: Operation) -> dict[str, Any]:
    answers = {str(status): _answer(gives) for status, gives in row.gives.items()}
    codes = (
        {"bad_request", *row.errors} if row.public else {"bad_request", "unauthorized", *row.errors}
    )
    for status, group in sorted(_by_status(codes).items()):
        answers[str(status)] = _errors(group)
    described: dict[str, Any] = {
        "operationId": name,
        "summary": row.summary,
        "tags": [row.tag],
        "responses": answers,
        "security": [] if row.public else [{"token": []}, {"password": []}],
    }
    if row.description:
        described["description"] = row.description
    if row.parameters:
        described["parameters"] = [_parameter(each) for each in row.parameters]
    if row.takes is not None:
        schema = {"$ref": _SCHEMA.format(name=row.takes.__name__)}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _answer(gives: Gives) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": gives.description}
    if gives.shapes:
        found, _ = msgspec.json.schema_components(gives.shapes, ref_template=_SCHEMA)
        schema = found[0] if len(found) == 1 else {"anyOf": list(found)}
        answer["content"] = {gives.media_type: {"schema": schema}}
    if gives.headers:
        answer["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in gives.headers.items()
        }
    return answer


def _by_status(codes: set[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for code in sorted(codes):
        found[ERRORS[code].status].append(code)
    return found


def _errors(codes: list[str]) -> dict[str, Any]:
    code = {"properties": {"code": {"enum": codes}}}
    schema = {"allOf": [{"$ref": _SCHEMA.format(name="Problem")}, code]}
    answer: dict[str, Any] = {
        "description": "; ".join(f"`{each}`: {ERRORS[each].title}" for each in codes),
        "content": {"application/problem+json": {"schema": schema}},
    }
    waiting = {"rate_limited", "overloaded", "store_unavailable"} & set(codes)
    names = ["Retry-After"] if waiting else ["WWW-Authenticate"] if "unauthorized" in codes else []
    if names:
        answer["headers"] = {name: {"schema": {"type": "string"}} for name in names}
    return answer


def json_schemas() -> dict[str, Any]:
    """The JSON Schema of every type that is taken or given."""
    types: list[Any] = [fields.Problem]
    for row in OPERATIONS.values():
        types += [shape for gives in row.gives.values() for shape in gives.shapes]
        types += [row.takes] if row.takes is not None else []
    _, found = msgspec.json.schema_components(types, ref_template=_SCHEMA)
    problem = found["Problem"]["properties"]
    problem["code"]["enum"] = list(ERRORS)
    return dict(sorted(found.items()))

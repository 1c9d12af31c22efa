"""Promises about every request, accounts and tokens."""

from __future__ import annotations

from chatd.conformance.checks import expect, expect_equal, promise
from chatd.conformance.server import Service

GENERAL, ACCOUNTS = "General", "Accounts"


@promise(GENERAL, "a collection answers with and without its final slash, without a redirect")
async def slashes(service: Service) -> None:
    ann = await service.person()
    for path in ("/users", "/chats"):
        for spelt in (path, f"{path}/"):
            expect_equal((await ann.ask("GET", spelt)).status, 200, spelt)


@promise(GENERAL, "errors are problem documents with a stable code, 404 and 405 too")
async def problems(service: Service) -> None:
    ann = await service.person()
    for method, path, status, code in [
        ("GET", "/chats/?page=x", 400, "invalid_query"),
        ("GET", "/users/?user_id=9007199254740991", 404, "user_not_found"),
        ("GET", "/nothing/", 404, "not_found"),
        ("PUT", "/chats/", 405, "method_not_allowed"),
    ]:
        reply = await ann.ask(method, path)
        expect_equal((reply.status, reply.code), (status, code), f"{method} {path}")
        expect_equal(
            [name for name in ("type", "title", "detail") if not reply.json.get(name)],
            [],
            f"missing members of the problem of {path}",
        )
    expect("GET" in (await ann.ask("PUT", "/chats/")).header("Allow"), "405 has no Allow")


@promise(GENERAL, "HEAD works where GET does; OPTIONS names the methods")
async def other_methods(service: Service) -> None:
    ann = await service.person()
    reply = await ann.ask("HEAD", "/chats/")
    expect_equal((reply.status, reply.answer.body), (200, b""), "HEAD /chats/")
    reply = await ann.ask("OPTIONS", "/chats/")
    expect(reply.status < 300, f"OPTIONS answers {reply.status}")
    expect("POST" in reply.header("Allow"), "OPTIONS names no POST")


@promise(GENERAL, "a body needs Content-Type: application/json and no members but the known")
async def bodies(service: Service) -> None:
    ann = await service.person()
    reply = await ann.ask("POST", "/chats/", headers={"Content-Type": "text/plain"})
    expect_equal(reply.status, 415, "a body of text/plain")
    body = {"user_id": ann.id, "message": "x", "colour": "red"}
    reply = await ann.ask("POST", "/chats/", body=body)
    expect_equal((reply.status, reply.code), (400, "invalid_body"), "an unknown member")
    expect("colour" in reply.json["detail"], "the unknown member is not named")
    expect_equal((await ann.get("?colour=red")).status, 200, "an unknown parameter")


@promise(GENERAL, "what belongs to a user is not cached, and a request's id comes back")
async def headers(service: Service) -> None:
    ann = await service.person()
    reply = await ann.ask("GET", "/chats/", headers={"X-Request-ID": "conformance.1_2-3"})
    expect("no-store" in reply.header("Cache-Control"), "no Cache-Control: no-store")
    expect_equal(reply.header("X-Request-ID"), "conformance.1_2-3", "X-Request-ID")
    reply = await ann.ask("GET", "/chats/", headers={"X-Request-ID": "no; id"})
    expect(reply.header("X-Request-ID") not in ("", "no; id"), "a bad X-Request-ID is kept")


@promise(GENERAL, "numbers in queries are plain decimal digits")
async def numbers(service: Service) -> None:
    ann = await service.person()
    for number in ("1_0", "0x10", "%201", "+1", "1.0", "1e1", "%D9%A1", ""):
        for name in ("page", "limit"):
            reply = await ann.get(f"?{name}={number}")
            expect_equal((reply.status, reply.code), (400, "invalid_query"), f"{name}={number}")


@promise(ACCOUNTS, "a user is found by id and by name whatever its case, and by nothing at all")
async def lookup(service: Service) -> None:
    ann = await service.person()
    for query in ("", f"?user_id={ann.id}", f"?username={ann.name.upper()}"):
        user = (await ann.ask("GET", f"/users/{query}")).json
        expect_equal((user["id"], user["username"]), (ann.id, ann.name), f"the user of {query!r}")
        members = {"id", "username", "email", "date_joined", "last_seen_at"}
        expect_equal(set(user), members, "members of a user")


@promise(ACCOUNTS, "a name is taken whatever its case, also by a deleted account")
async def names(service: Service) -> None:
    ann = await service.person()
    body = {"username": ann.name.upper(), "email": "x@example.org", "password": "whatever"}
    reply = await service.ask("POST", "/users/", body=body)
    expect_equal((reply.status, reply.code), (409, "username_taken"), "the name once more")
    await ann.ask("DELETE", "/users/")
    reply = await service.ask("POST", "/users/", body=body)
    expect_equal((reply.status, reply.code), (409, "username_taken"), "a deleted name")


@promise(ACCOUNTS, "a wrong or missing token is 401 with a challenge; Basic works as well")
async def authentication(service: Service) -> None:
    ann = await service.person()
    for token in (None, "wrong", ann.token + "x"):
        reply = await service.ask("GET", "/chats/", token=token)
        expect_equal((reply.status, reply.code), (401, "unauthorized"), f"token {token!r}")
        expect(reply.header("WWW-Authenticate"), "401 has no WWW-Authenticate")
    reply = await service.ask("GET", "/users/", headers=service.basic(ann))
    expect_equal((reply.status, (reply.json or {}).get("id")), (200, ann.id), "Basic")
    reply = await service.ask("DELETE", "/tokens/", headers=service.basic(ann))
    expect_equal((reply.status, reply.code), (400, "not_a_token"), "DELETE /tokens/ with Basic")


@promise(ACCOUNTS, "logging out revokes that token, ends its polls, and leaves other tokens")
async def log_out(service: Service) -> None:
    ann = await service.person()
    body = {"username": ann.name, "password": "conformance"}
    other = (await service.ask("POST", "/tokens/", body=body)).json["token"]
    held = service.start(ann.get("?since=now&wait=20"))
    kept = service.start(service.ask("GET", "/chats/?since=now&wait=3", token=other))
    await service.pause(0.5)
    expect_equal((await ann.ask("DELETE", "/tokens/")).status, 204, "DELETE /tokens/")
    reply = await held
    expect_equal(reply.status, 401, "the held poll of the revoked token")
    expect(reply.seconds < 5, "the held poll ended late")
    expect_equal((await ann.get()).status, 401, "the revoked token")
    expect_equal((await kept).status, 200, "the held poll of another token")


@promise(ACCOUNTS, "a deleted account is gone, its polls end, what it sent stays")
async def deletion(service: Service) -> None:
    ann, bob = await service.two()
    await bob.send(ann, "stays")
    held = service.start(bob.get("?since=now&wait=20"))
    await service.pause(0.5)
    expect_equal((await bob.ask("DELETE", "/users/")).status, 204, "DELETE /users/")
    expect_equal((await held).status, 401, "the held poll of a deleted account")
    expect_equal((await bob.get()).status, 401, "the token of a deleted account")
    reply = await ann.ask("GET", f"/users/?user_id={bob.id}")
    expect_equal(reply.code, "user_not_found", "a deleted user")
    expect_equal((await ann.send(bob)).code, "user_not_found", "a message to a deleted user")
    expect_equal((await ann.get()).texts, ["stays"], "the inbox of the recipient")

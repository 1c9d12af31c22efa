"""Checks of requests in general, accounts and tokens."""

from __future__ import annotations

from chatd.conformance.checks import check, expect, expect_equal
from chatd.conformance.server import Server

GENERAL, ACCOUNTS = "General", "Accounts"


@check(GENERAL, "collections answer with and without a trailing slash, without a redirect")
async def slashes(server: Server) -> None:
    ann = await server.new_account()
    for path in ("/users", "/chats"):
        for url_path in (path, f"{path}/"):
            expect_equal((await ann.request("GET", url_path)).status, 200, url_path)


@check(GENERAL, "errors are problem documents with a stable code, including 404 and 405")
async def problems(server: Server) -> None:
    ann = await server.new_account()
    for method, path, status, code in [
        ("GET", "/chats/?page=x", 400, "invalid_query"),
        ("GET", "/users/?user_id=9007199254740991", 404, "user_not_found"),
        ("GET", "/nothing/", 404, "not_found"),
        ("PUT", "/chats/", 405, "method_not_allowed"),
    ]:
        response = await ann.request(method, path)
        expect_equal((response.status, response.code), (status, code), f"{method} {path}")
        expect_equal(
            [name for name in ("type", "title", "detail") if not response.json.get(name)],
            [],
            f"missing members of the problem of {path}",
        )
    expect("GET" in (await ann.request("PUT", "/chats/")).header("Allow"), "405 has no Allow")


@check(GENERAL, "HEAD works wherever GET does; OPTIONS lists the methods")
async def other_methods(server: Server) -> None:
    ann = await server.new_account()
    response = await ann.request("HEAD", "/chats/")
    expect_equal((response.status, response.raw.body), (200, b""), "HEAD /chats/")
    response = await ann.request("OPTIONS", "/chats/")
    expect(response.status < 300, f"OPTIONS answers {response.status}")
    expect("POST" in response.header("Allow"), "OPTIONS does not list POST")


@check(GENERAL, "a body needs Content-Type: application/json and may have known members only")
async def bodies(server: Server) -> None:
    ann = await server.new_account()
    response = await ann.request("POST", "/chats/", headers={"Content-Type": "text/plain"})
    expect_equal(response.status, 415, "a body of text/plain")
    body = {"user_id": ann.id, "message": "x", "colour": "red"}
    response = await ann.request("POST", "/chats/", body=body)
    expect_equal((response.status, response.code), (400, "invalid_body"), "an unknown member")
    expect("colour" in response.json["detail"], "the unknown member is not named")
    expect_equal((await ann.get("?colour=red")).status, 200, "an unknown parameter")


@check(GENERAL, "responses about a user are not cached, and X-Request-ID is echoed")
async def headers(server: Server) -> None:
    ann = await server.new_account()
    response = await ann.request("GET", "/chats/", headers={"X-Request-ID": "conformance.1_2-3"})
    expect("no-store" in response.header("Cache-Control"), "no Cache-Control: no-store")
    expect_equal(response.header("X-Request-ID"), "conformance.1_2-3", "X-Request-ID")
    response = await ann.request("GET", "/chats/", headers={"X-Request-ID": "no; id"})
    expect(
        response.header("X-Request-ID") not in ("", "no; id"), "an invalid X-Request-ID is echoed"
    )


@check(GENERAL, "numbers in queries are plain decimal digits")
async def numbers(server: Server) -> None:
    ann = await server.new_account()
    for number in ("1_0", "0x10", "%201", "+1", "1.0", "1e1", "%D9%A1", ""):
        for name in ("page", "limit"):
            response = await ann.get(f"?{name}={number}")
            expect_equal(
                (response.status, response.code), (400, "invalid_query"), f"{name}={number}"
            )


@check(ACCOUNTS, "users are found by id and by case-insensitive name, or by default the caller")
async def lookup(server: Server) -> None:
    ann = await server.new_account()
    for query in ("", f"?user_id={ann.id}", f"?username={ann.name.upper()}"):
        user = (await ann.request("GET", f"/users/{query}")).json
        expect_equal((user["id"], user["username"]), (ann.id, ann.name), f"the user of {query!r}")
        members = {"id", "username", "email", "date_joined", "last_seen_at"}
        expect_equal(set(user), members, "members of a user")


@check(ACCOUNTS, "names are unique ignoring case, and never reused after an account is deleted")
async def names(server: Server) -> None:
    ann = await server.new_account()
    body = {"username": ann.name.upper(), "email": "x@example.org", "password": "whatever"}
    response = await server.request("POST", "/users/", body=body)
    expect_equal((response.status, response.code), (409, "username_taken"), "the name once more")
    await ann.request("DELETE", "/users/")
    response = await server.request("POST", "/users/", body=body)
    expect_equal((response.status, response.code), (409, "username_taken"), "a deleted name")


@check(ACCOUNTS, "a wrong or missing token is 401 with a challenge; Basic works, too")
async def authentication(server: Server) -> None:
    ann = await server.new_account()
    for token in (None, "wrong", ann.token + "x"):
        response = await server.request("GET", "/chats/", token=token)
        expect_equal((response.status, response.code), (401, "unauthorized"), f"token {token!r}")
        expect(response.header("WWW-Authenticate"), "401 has no WWW-Authenticate")
    response = await server.request("GET", "/users/", headers=server.basic_auth(ann))
    expect_equal((response.status, (response.json or {}).get("id")), (200, ann.id), "Basic")
    response = await server.request("DELETE", "/tokens/", headers=server.basic_auth(ann))
    expect_equal(
        (response.status, response.code), (400, "not_a_token"), "DELETE /tokens/ with Basic"
    )


@check(ACCOUNTS, "logging out revokes the token and ends its polls, but no other token")
async def log_out(server: Server) -> None:
    ann = await server.new_account()
    body = {"username": ann.name, "password": "conformance"}
    other = (await server.request("POST", "/tokens/", body=body)).json["token"]
    held = server.start(ann.get("?since=now&wait=20"))
    kept = server.start(server.request("GET", "/chats/?since=now&wait=3", token=other))
    await server.pause(0.5)
    expect_equal((await ann.request("DELETE", "/tokens/")).status, 204, "DELETE /tokens/")
    response = await held
    expect_equal(response.status, 401, "the held poll of the revoked token")
    expect(response.seconds < 5, "the held poll ended late")
    expect_equal((await ann.get()).status, 401, "the revoked token")
    expect_equal((await kept).status, 200, "the held poll of another token")


@check(ACCOUNTS, "a deleted account is gone and its polls end, but the messages it sent remain")
async def deletion(server: Server) -> None:
    ann, bob = await server.two_accounts()
    await bob.send(ann, "stays")
    held = server.start(bob.get("?since=now&wait=20"))
    await server.pause(0.5)
    expect_equal((await bob.request("DELETE", "/users/")).status, 204, "DELETE /users/")
    expect_equal((await held).status, 401, "the held poll of a deleted account")
    expect_equal((await bob.get()).status, 401, "the token of a deleted account")
    response = await ann.request("GET", f"/users/?user_id={bob.id}")
    expect_equal(response.code, "user_not_found", "a deleted user")
    expect_equal((await ann.send(bob)).code, "user_not_found", "a message to a deleted user")
    expect_equal((await ann.get()).texts, ["stays"], "the inbox of the recipient")

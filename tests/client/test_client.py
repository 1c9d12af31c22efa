"""Calls of `ChatClient`: requests sent, retries, and exceptions."""

import errno
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.internet import error as twisted_error
from twisted.internet.defer import CancelledError, Deferred, fail

from chatd.client import (
    APIError,
    BlockedUser,
    ChatClient,
    HistoryChanged,
    NoTokenError,
    NotSupported,
    Token,
    Unreachable,
    exchange,
)
from chatd.client.client import REMOVAL_SECONDS
from tests.client.scripted import (
    Canned,
    Disconnect,
    Harness,
    Hold,
    failure,
    message,
    polled,
    problem,
    success,
)

ANN = {
    "id": 1,
    "username": "ann",
    "email": "ann@example.org",
    "date_joined": "2026-11-22T12:00:00Z",
    "last_seen_at": None,
}


class TestCalls:
    def setup_method(self) -> None:
        self.harness = Harness()
        self.client = self.harness.client
        self.service = self.harness.service

    def test_a_message_is_sent_and_returned(self) -> None:
        self.service.script = [Canned(201, message(7, "hé"))]
        sent = success(self.harness.start(self.client.send(2, "hé")))
        assert sent.message.seq == 7
        assert sent.message.text == "hé"
        assert sent.message.sent_at == datetime(2026, 11, 22, 12, tzinfo=UTC)
        assert not sent.replayed
        [request] = self.service.requests
        assert request.method == b"POST"
        assert request.path == b"/api/v1/chats/"
        assert request.getHeader("authorization") == "Bearer chatd_token"
        assert request.getHeader("content-type") == "application/json"
        assert json.loads(self.service.bodies[0]) == {"user_id": 2, "message": "hé"}

    def test_all_attempts_of_a_send_carry_one_key(self) -> None:
        replay = Canned(200, message(7), {"Idempotency-Replayed": "true"})
        self.service.script = [
            Disconnect(),
            problem(503, "store_unavailable", Retry_After="2"),
            replay,
        ]
        sending = self.harness.start(self.client.send(2, "hi"))
        self.harness.advance(5)
        assert success(sending).replayed
        keys = {request.getHeader("idempotency-key") for request in self.service.requests}
        assert len(keys) == 1
        assert len(self.service.requests) == 3
        assert len(keys.pop() or "") >= 16

    def test_each_send_gets_its_own_key(self) -> None:
        self.service.script = [Canned(201, message(1)), Canned(201, message(2))]
        for _ in range(2):
            success(self.harness.start(self.client.send(2, "hi")))
        first, second = (each.getHeader("idempotency-key") for each in self.service.requests)
        assert first != second

    def test_the_caller_may_choose_the_key(self) -> None:
        self.service.script = [Canned(201, message(1))]
        success(self.harness.start(self.client.send(2, "hi", key="order-17")))
        assert self.service.requests[0].getHeader("idempotency-key") == "order-17"

    def test_retry_after_is_respected(self) -> None:
        self.service.script = [
            problem(429, "rate_limited", Retry_After="9"),
            Canned(201, message(1)),
        ]
        sending = self.harness.start(self.client.send(2, "hi"))
        self.harness.advance(9)
        assert len(self.service.requests) == 1
        self.harness.advance(1)
        success(sending)

    def test_retries_end_after_retry_seconds(self) -> None:
        harness = Harness(retry_seconds=10)
        harness.service.script = [problem(503, "overloaded", Retry_After="4") for _ in range(9)]
        sending = harness.start(harness.client.send(2, "hi"))
        harness.advance(30)
        error = failure(sending, APIError)
        assert (error.status, error.code) == (503, "overloaded")
        assert error.retry_after == 4.0
        assert len(harness.service.requests) == 3

    def test_client_errors_are_not_retried(self) -> None:
        self.service.script = [problem(404, "user_not_found", X_Request_ID="r1")]
        sending = self.harness.start(self.client.send(99, "hi"))
        error = failure(sending, APIError)
        assert (error.code, error.request_id) == ("user_not_found", "r1")
        assert "user_not_found" in str(error)
        assert not error.retryable

    def test_an_error_page_of_a_proxy_has_no_code(self) -> None:
        self.service.script = [Canned(403, raw=b"<html>go away</html>")]
        error = failure(self.harness.start(self.client.me()), APIError)
        assert (error.status, error.code) == (403, "")
        assert str(error) == "HTTP 403 (403)"

    def test_a_response_that_is_not_from_chatd_is_unreachable(self) -> None:
        self.service.script = [Canned(200, raw=b"<html>please log in to the hotel</html>")] * 99
        call = self.harness.start(self.client.me())
        self.harness.advance(90)
        failure(call, Unreachable)

    def test_a_response_that_grows_too_large_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exchange, "MAX_RESPONSE_BYTES", 10)
        harness = Harness(retry_seconds=0)
        harness.service.script = [Canned(200, raw=b"x" * 11)]
        error = failure(harness.start(harness.client.me()), Unreachable)
        assert "too large" in str(error)

    def test_redirects_are_not_followed(self) -> None:
        self.service.script = [Canned(302, raw=b"", headers={"Location": "http://evil.example"})]
        error = failure(self.harness.start(self.client.me()), APIError)
        assert error.status == 302
        assert len(self.service.requests) == 1

    def test_a_missing_response_times_out(self) -> None:
        harness = Harness(retry_seconds=30)
        harness.service.script = [Hold(), Canned(200, ANN)]
        call = harness.start(harness.client.me())
        harness.advance(19)
        assert not call.called
        harness.advance(2)
        assert success(call).username == "ann"

    def test_an_incomplete_response_times_out(self) -> None:
        self.service.script = [Hold(), Canned(200, ANN)]
        call = self.harness.start(self.client.me())
        [request] = self.service.held
        lost: list[object] = []
        _ = request.notifyFinish().addErrback(lost.append)
        request.setHeader("Content-Length", "100")
        request.write(b'{"id": 1,')
        self.harness.advance(21)
        assert success(call).id == 1
        assert len(lost) == 1, "the first connection is still open"

    def test_cancelling_closes_the_connection_without_a_retry(self) -> None:
        self.service.script = [Hold()]
        call = self.harness.start(self.client.me())
        lost: list[object] = []
        _ = self.service.held[0].notifyFinish().addErrback(lost.append)
        call.cancel()
        self.harness.advance(60)
        failure(call, CancelledError)
        assert (len(lost), len(self.service.requests)) == (1, 1)
        assert self.harness.clock.getDelayedCalls() == []

    def test_cancelling_between_attempts_ends_the_call(self) -> None:
        self.service.script = [Disconnect()]
        call = self.harness.start(self.client.me())
        self.harness.http.flush()
        call.cancel()
        failure(call, CancelledError)
        assert self.harness.clock.getDelayedCalls() == []

    def test_log_in_stores_the_token(self) -> None:
        issued = {"token": "chatd_new", "user_id": 1, "created_at": "2026-11-22T12:00:00Z"}
        self.service.script = [Canned(201, issued), Canned(200, ANN)]
        self.client.token = None
        success(self.harness.start(self.client.log_in("ann", "secret")))
        assert success(self.harness.start(self.client.me())).id == 1
        assert self.service.requests[0].getHeader("authorization") is None
        assert self.service.requests[1].getHeader("authorization") == "Bearer chatd_new"

    def test_a_token_may_be_limited(self) -> None:
        issued = {"token": "t", "user_id": 1, "created_at": "2026-11-22T12:00:00Z"}
        self.service.script = [Canned(201, issued), Canned(201, issued)]
        limits: dict[str, Any] = {"label": "cron", "expires_in": 60, "scopes": ("send",)}
        success(self.harness.start(self.client.log_in("ann", "secret", **limits)))
        success(self.harness.start(self.client.log_in("ann", "secret")))
        ann = {"username": "ann", "password": "secret"}
        limited, plain = map(json.loads, self.service.bodies)
        assert limited == {**ann, "label": "cron", "expires_in": 60, "scopes": ["send"]}
        assert plain == ann, "as version 1 of the service takes it"

    def test_tokens_are_listed(self) -> None:
        token = {
            "id": 3,
            "label": "cron",
            "scopes": ["read", "send"],
            "created_at": "2026-11-22T12:00:00Z",
            "last_used_at": None,
            "expires_at": "2026-11-22T13:00:00Z",
            "current": True,
        }
        self.service.script = [Canned(200, {"tokens": [token]})]
        [found] = success(self.harness.start(self.client.tokens()))
        noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
        later = noon.replace(hour=13)
        assert found == Token(3, "cron", ("read", "send"), noon, None, later, True)
        assert self.service.requests[0].path == b"/api/v1/tokens/"

    def test_tokens_are_revoked(self) -> None:
        self.service.script = [Canned(204, raw=b""), Disconnect(), Canned(204, raw=b"")]
        success(self.harness.start(self.client.revoke_token(3)))
        assert (self.service.requests[0].method, self.service.query("id")) == (b"DELETE", "3")
        revoking = self.harness.start(self.client.revoke_other_tokens())
        self.harness.advance(5)
        success(revoking)
        assert (self.service.query("id"), self.service.query("others")) == (None, "true")
        assert self.client.token == "chatd_token"

    def test_the_email_is_changed_and_the_change_repeated(self) -> None:
        self.service.script = [Disconnect(), Canned(200, ANN)]
        changing = self.harness.start(self.client.change_email("secret", "ann@example.org"))
        self.harness.advance(5)
        assert success(changing).email == "ann@example.org"
        body = {"current_password": "secret", "email": "ann@example.org"}
        assert [json.loads(each) for each in self.service.bodies] == [body, body]
        assert self.service.requests[0].method == b"PATCH"

    def test_a_new_password_is_not_sent_again_when_it_may_be_in_force(self) -> None:
        self.service.script = [Disconnect(), Canned(200, ANN)]
        failure(self.harness.start(self.client.change_password("secret", "new")), Unreachable)
        success(self.harness.start(self.client.change_password("secret", "new")))
        assert json.loads(self.service.bodies[1]) == {
            "current_password": "secret",
            "password": "new",
        }

    def test_register_is_not_retried_when_it_may_have_succeeded(self) -> None:
        self.service.script = [Disconnect()]
        call = self.harness.start(self.client.register("ann", "ann@example.org", "secret"))
        self.harness.advance(1)
        failure(call, Unreachable)

    def test_register_waits_for_a_rate_limit_and_is_retried_if_it_did_not_arrive(self) -> None:
        self.service.script = [
            problem(408, "request_timeout"),
            problem(429, "rate_limited", Retry_After="1"),
            Canned(201, ANN, {"Location": "/api/v1/users/?user_id=1"}),
        ]
        call = self.harness.start(self.client.register("ann", "ann@example.org", "secret"))
        self.harness.advance(2)
        assert success(call).email == "ann@example.org"

    def test_logging_out_twice_succeeds(self) -> None:
        self.service.script = [Canned(204, raw=b"")]
        success(self.harness.start(self.client.log_out()))
        assert self.client.token is None
        self.client.token = "chatd_old"
        self.service.script = [problem(401, "unauthorized")]
        success(self.harness.start(self.client.log_out()))
        self.client.token = "chatd_old"
        self.service.script = [problem(400, "not_a_token")]
        failure(self.harness.start(self.client.log_out()), APIError)

    def test_a_message_is_edited_and_deleted(self) -> None:
        edited = {**message(7, "new"), "edited_at": "2026-11-22T12:01:00Z"}
        self.service.script = [Disconnect(), Canned(200, edited)]
        editing = self.harness.start(self.client.edit(1, 7, "new"))
        self.harness.advance(5)
        found = success(editing)
        assert (found.text, found.deleted_at) == ("new", None)
        assert found.edited_at == datetime(2026, 11, 22, 12, 1, tzinfo=UTC)
        assert {request.method for request in self.service.requests} == {b"PATCH"}
        assert json.loads(self.service.bodies[1]) == {"user_id": 1, "seq": 7, "message": "new"}
        self.service.script = [Canned(204, raw=b"")]
        success(self.harness.start(self.client.delete(1, 7)))
        request = self.service.requests[-1]
        assert (request.method, request.uri) == (b"DELETE", b"/api/v1/chats/?user_id=1&seq=7")
        self.service.script = [problem(403, "too_late")]
        assert failure(self.harness.start(self.client.delete(1, 7)), APIError).code == "too_late"

    def test_the_oldest_messages_are_removed(self) -> None:
        self.service.script = [Disconnect(), Canned(204, raw=b"")]
        removing = self.harness.start(self.client.remove_oldest(7))
        self.harness.advance(5)
        success(removing)
        for request in self.service.requests:
            assert (request.method, request.uri) == (b"DELETE", b"/api/v1/chats/?up_to=7")
        # It may take longer than other calls.
        self.service.script = [Hold()]
        removing = self.harness.start(self.client.remove_oldest(7))
        self.harness.advance(REMOVAL_SECONDS)
        assert len(self.service.requests) == 3
        assert not removing.called
        removing.cancel()
        failure(removing, CancelledError)
        self.service.script = [problem(400, "invalid_query")]
        found = failure(self.harness.start(self.client.remove_oldest(8)), APIError)
        assert found.code == "invalid_query"

    def test_accounts_are_blocked_and_unblocked(self) -> None:
        self.service.script = [Canned(204, raw=b""), Canned(204, raw=b"")]
        success(self.harness.start(self.client.block(2)))
        success(self.harness.start(self.client.unblock(2)))
        put, delete = self.service.requests
        assert (put.method, put.uri) == (b"PUT", b"/api/v1/blocks/")
        assert json.loads(self.service.bodies[0]) == {"user_id": 2}
        assert (delete.method, delete.uri) == (b"DELETE", b"/api/v1/blocks/?user_id=2")
        listed = {"blocks": [{"user_id": 2, "username": "bob"}]}
        self.service.script = [Canned(200, listed)]
        assert success(self.harness.start(self.client.blocks())) == (BlockedUser(2, "bob"),)

    def test_an_account_is_deleted(self) -> None:
        self.service.script = [Canned(204, raw=b"")]
        assert success(self.harness.start(self.client.delete_account())) is True
        [request] = self.service.requests
        assert (request.method, request.uri) == (b"DELETE", b"/api/v1/users/")
        assert self.client.token is None

    @pytest.mark.parametrize(("status", "done"), [(204, True), (202, False)])
    def test_an_account_is_deleted_with_what_it_has_sent(self, status: int, done: bool) -> None:
        self.service.script = [Canned(200, {"tokens": []}), Canned(status, raw=b"")]
        assert success(self.harness.start(self.client.delete_account(erase=True))) is done
        request = self.service.requests[1]
        assert (request.method, request.uri) == (b"DELETE", b"/api/v1/users/?erase=true")
        assert self.client.token is None

    def test_an_old_service_deletes_no_account_without_what_it_has_sent(self) -> None:
        for canned, expected in (
            (problem(405, "method_not_allowed"), NotSupported),
            (problem(401, "unauthorized"), APIError),
        ):
            self.service.script = [canned]
            failure(self.harness.start(self.client.delete_account(erase=True)), expected)
        assert {request.method for request in self.service.requests} == {b"GET"}

    def test_without_a_token_no_request_is_sent(self) -> None:
        self.client.token = None
        failure(self.harness.start(self.client.me()), NoTokenError)
        assert self.service.requests == []

    def test_users_are_found_by_id_and_name(self) -> None:
        self.service.script = [Canned(200, ANN), Canned(200, ANN)]
        success(self.harness.start(self.client.user(1)))
        assert self.service.query("user_id") == "1"
        success(self.harness.start(self.client.user_named("ann&x=1")))
        assert self.service.query("username") == "ann&x=1"

    def test_a_page_has_its_neighbours(self) -> None:
        meta = {
            "count": 13,
            "next": 2,
            "current_page": "1",
            "took": 10,
            "previous": None,
            "cursor": "epochepoch-13",
        }
        body = {"meta": meta, "messages": [message(13)]}
        self.service.script = [Canned(200, body)]
        page = success(self.harness.start(self.client.page(1, at="epochepoch-13")))
        assert (page.count, page.next, page.previous) == (13, 2, None)
        assert self.service.query("at") == "epochepoch-13"

    def test_a_conversation_is_read_from_its_end(self) -> None:
        body = {"meta": {"older": "x1", "took": 0}, "messages": [message(13)]}
        self.service.script = [Canned(200, body)] * 2
        conversation = success(self.harness.start(self.client.conversation(2)))
        assert (conversation.older, conversation.messages[0].seq) == ("x1", 13)
        success(self.harness.start(self.client.conversation(2, before=conversation.older)))
        assert self.service.query("with") == "2"
        assert self.service.query("before") == "x1"

    def test_the_end_of_the_inbox_is_a_cursor(self) -> None:
        self.service.script = [polled(count=5, cursor="epochepoch-5")]
        assert success(self.harness.start(self.client.cursor())) == "epochepoch-5"
        assert self.service.query("since") == "now"
        assert self.service.query("wait") == "0"

    def test_a_poll_has_a_longer_timeout(self) -> None:
        self.service.script = [Hold()]
        polling = self.harness.start(self.client.poll("0", 55))
        self.harness.advance(60)
        self.harness.respond(polled(1, waited=54_000))
        assert success(polling).waited == 54.0

    def test_a_cursor_of_another_history_raises_history_changed(self) -> None:
        self.service.script = [problem(410, "cursor_epoch")]
        failure(self.harness.start(self.client.poll("abc", 1)), HistoryChanged)

    def test_unreachable_says_if_the_request_was_sent(self) -> None:
        assert not Unreachable("error", sent=False).sent


class Refusing:
    """A network on which no connection to the service can be made until `listening` is set."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.listening = False

    def request(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        if self.listening:
            asked: Deferred[Any] = self._http.request(*arguments, **options)
            return asked
        return fail(twisted_error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))


class TestWaitingForTheService:
    def setup_method(self) -> None:
        self.harness = Harness()
        self.network = Refusing(self.harness.http)

    def client(self, wait_for_service: bool) -> ChatClient:
        return ChatClient(
            "http://chat.example",
            "chatd_token",
            wait_for_service=wait_for_service,
            http=self.network,
            clock=self.harness.clock,
        )

    def test_by_default_a_call_waits_for_the_service_to_start(self) -> None:
        call = self.harness.start(self.client(True).me())
        self.harness.advance(1)
        assert not call.called
        self.network.listening = True
        self.harness.service.script = [Canned(200, ANN)]
        self.harness.advance(30)
        assert success(call).id == 1

    def test_without_waiting_a_refused_connection_fails_at_once(self) -> None:
        call = self.harness.start(self.client(False).me())
        assert str(failure(call, Unreachable)) == "Connection refused"
        assert self.harness.clock.getDelayedCalls() == []

    def test_without_waiting_calls_are_still_retried_once_the_service_has_answered(self) -> None:
        client = self.client(False)
        self.network.listening = True
        self.harness.service.script = [problem(404, "user_not_found"), Canned(200, ANN)]
        failure(self.harness.start(client.user(7)), APIError)
        self.network.listening = False
        call = self.harness.start(client.me())
        self.harness.advance(1)
        assert not call.called
        self.network.listening = True
        self.harness.advance(30)
        assert success(call).id == 1


@pytest.mark.parametrize(
    "url", ["http://h:8080", "http://h:8080/", "http://h:8080/api/v1", "http://h:8080/api/v1/"]
)
def test_the_base_url_may_name_the_api(url: str) -> None:
    harness = Harness()
    client = ChatClient(url, http=harness.http, polls=harness.http, clock=harness.clock)
    assert client._caller.url == "http://h:8080/api/v1"


def test_a_client_closes_its_connection_pools() -> None:
    from twisted.internet.testing import MemoryReactorClock

    async def life(make: Callable[..., Any]) -> None:
        async with make("http://h", reactor=MemoryReactorClock()):
            pass

    done = Deferred.fromCoroutine(life(ChatClient))
    assert done.called

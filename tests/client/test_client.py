"""Calls of the client: what is asked, what is repeated, and what is raised."""

import errno
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, fail

from chatd.client import (
    APIError,
    ChatClient,
    HistoryChanged,
    NoTokenError,
    Unreachable,
)
from tests.client.scripted import (
    Canned,
    Cut,
    Hold,
    World,
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
        self.world = World()
        self.client = self.world.client
        self.service = self.world.service

    def test_a_message_is_sent_and_returned(self) -> None:
        self.service.script = [Canned(201, message(7, "hé"))]
        sent = success(self.world.start(self.client.send(2, "hé")))
        assert sent.message.seq == 7
        assert sent.message.text == "hé"
        assert sent.message.sent_at == datetime(2026, 11, 22, 12, tzinfo=UTC)
        assert not sent.replayed
        [request] = self.service.asked
        assert request.method == b"POST"
        assert request.path == b"/api/v1/chats/"
        assert request.getHeader("authorization") == "Bearer chatd_token"
        assert request.getHeader("content-type") == "application/json"
        assert json.loads(self.service.bodies[0]) == {"user_id": 2, "message": "hé"}

    def test_every_try_of_a_send_carries_the_same_key(self) -> None:
        replay = Canned(200, message(7), {"Idempotency-Replayed": "true"})
        self.service.script = [Cut(), problem(503, "store_unavailable", Retry_After="2"), replay]
        sending = self.world.start(self.client.send(2, "hi"))
        self.world.pass_time(5)
        assert success(sending).replayed
        keys = {request.getHeader("idempotency-key") for request in self.service.asked}
        assert len(keys) == 1
        assert len(self.service.asked) == 3
        assert len(keys.pop() or "") >= 16

    def test_two_sends_have_two_keys(self) -> None:
        self.service.script = [Canned(201, message(1)), Canned(201, message(2))]
        for _ in range(2):
            success(self.world.start(self.client.send(2, "hi")))
        first, second = (each.getHeader("idempotency-key") for each in self.service.asked)
        assert first != second

    def test_a_key_of_the_caller_is_used(self) -> None:
        self.service.script = [Canned(201, message(1))]
        success(self.world.start(self.client.send(2, "hi", key="order-17")))
        assert self.service.asked[0].getHeader("idempotency-key") == "order-17"

    def test_retry_after_is_obeyed(self) -> None:
        self.service.script = [
            problem(429, "rate_limited", Retry_After="9"),
            Canned(201, message(1)),
        ]
        sending = self.world.start(self.client.send(2, "hi"))
        self.world.pass_time(9)
        assert len(self.service.asked) == 1
        self.world.pass_time(1)
        success(sending)

    def test_patience_ends(self) -> None:
        world = World(patience=10)
        world.service.script = [problem(503, "overloaded", Retry_After="4") for _ in range(9)]
        sending = world.start(world.client.send(2, "hi"))
        world.pass_time(30)
        refused = failure(sending, APIError)
        assert (refused.status, refused.code) == (503, "overloaded")
        assert refused.retry_after == 4.0
        assert len(world.service.asked) == 3

    def test_what_is_wrong_is_not_repeated(self) -> None:
        self.service.script = [problem(404, "user_not_found", X_Request_ID="r1")]
        sending = self.world.start(self.client.send(99, "hi"))
        refused = failure(sending, APIError)
        assert (refused.code, refused.request_id) == ("user_not_found", "r1")
        assert "user_not_found" in str(refused)
        assert not refused.passing

    def test_an_error_page_of_a_proxy_has_no_code(self) -> None:
        self.service.script = [Canned(403, raw=b"<html>go away</html>")]
        refused = failure(self.world.start(self.client.me()), APIError)
        assert (refused.status, refused.code) == (403, "")
        assert str(refused) == "HTTP 403 (403)"

    def test_a_page_of_somebody_else_is_no_answer(self) -> None:
        self.service.script = [Canned(200, raw=b"<html>please log in to the hotel</html>")] * 99
        asking = self.world.start(self.client.me())
        self.world.pass_time(90)
        failure(asking, Unreachable)

    def test_redirects_are_not_followed(self) -> None:
        self.service.script = [Canned(302, raw=b"", headers={"Location": "http://evil.example"})]
        refused = failure(self.world.start(self.client.me()), APIError)
        assert refused.status == 302
        assert len(self.service.asked) == 1

    def test_an_answer_that_does_not_come_is_given_up(self) -> None:
        world = World(patience=30)
        world.service.script = [Hold(), Canned(200, ANN)]
        asking = world.start(world.client.me())
        world.pass_time(19)
        assert not asking.called
        world.pass_time(2)
        assert success(asking).username == "ann"

    def test_an_answer_that_stops_half_way_is_given_up(self) -> None:
        self.service.script = [Hold(), Canned(200, ANN)]
        asking = self.world.start(self.client.me())
        [request] = self.service.held
        lost: list[object] = []
        _ = request.notifyFinish().addErrback(lost.append)
        request.setHeader("Content-Length", "100")
        request.write(b'{"id": 1,')
        self.world.pass_time(21)
        assert success(asking).id == 1
        assert len(lost) == 1, "the first connection stays open"

    def test_cancelling_closes_the_connection_and_repeats_nothing(self) -> None:
        self.service.script = [Hold()]
        asking = self.world.start(self.client.me())
        lost: list[object] = []
        _ = self.service.held[0].notifyFinish().addErrback(lost.append)
        asking.cancel()
        self.world.pass_time(60)
        failure(asking, CancelledError)
        assert (len(lost), len(self.service.asked)) == (1, 1)
        assert self.world.clock.getDelayedCalls() == []

    def test_cancelling_between_two_tries_ends_the_call(self) -> None:
        self.service.script = [Cut()]
        asking = self.world.start(self.client.me())
        self.world.http.flush()
        asking.cancel()
        failure(asking, CancelledError)
        assert self.world.clock.getDelayedCalls() == []

    def test_logging_in_keeps_the_token(self) -> None:
        issued = {"token": "chatd_new", "user_id": 1, "created_at": "2026-11-22T12:00:00Z"}
        self.service.script = [Canned(201, issued), Canned(200, ANN)]
        self.client.token = None
        success(self.world.start(self.client.log_in("ann", "secret")))
        assert success(self.world.start(self.client.me())).id == 1
        assert self.service.asked[0].getHeader("authorization") is None
        assert self.service.asked[1].getHeader("authorization") == "Bearer chatd_new"

    def test_registering_is_not_repeated_when_it_may_have_worked(self) -> None:
        self.service.script = [Cut()]
        asking = self.world.start(self.client.register("ann", "ann@example.org", "secret"))
        self.world.pass_time(1)
        failure(asking, Unreachable)

    def test_registering_waits_for_a_rate_limit(self) -> None:
        self.service.script = [
            problem(429, "rate_limited", Retry_After="1"),
            Canned(201, ANN, {"Location": "/api/v1/users/?user_id=1"}),
        ]
        asking = self.world.start(self.client.register("ann", "ann@example.org", "secret"))
        self.world.pass_time(2)
        assert success(asking).email == "ann@example.org"

    def test_logging_out_twice_is_logged_out(self) -> None:
        self.service.script = [Canned(204, raw=b"")]
        success(self.world.start(self.client.log_out()))
        assert self.client.token is None
        self.client.token = "chatd_old"
        self.service.script = [problem(401, "unauthorized")]
        success(self.world.start(self.client.log_out()))
        self.client.token = "chatd_old"
        self.service.script = [problem(400, "not_a_token")]
        failure(self.world.start(self.client.log_out()), APIError)

    def test_an_account_is_deleted(self) -> None:
        self.service.script = [Canned(204, raw=b"")]
        success(self.world.start(self.client.delete_account()))
        assert self.service.asked[0].method == b"DELETE"
        assert self.client.token is None

    def test_without_a_token_nothing_is_asked(self) -> None:
        self.client.token = None
        failure(self.world.start(self.client.me()), NoTokenError)
        assert self.service.asked == []

    def test_people_are_found_by_id_and_name(self) -> None:
        self.service.script = [Canned(200, ANN), Canned(200, ANN)]
        success(self.world.start(self.client.user(1)))
        assert self.service.query("user_id") == "1"
        success(self.world.start(self.client.user_named("ann&x=1")))
        assert self.service.query("username") == "ann&x=1"

    def test_a_page_tells_where_it_is(self) -> None:
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
        page = success(self.world.start(self.client.page(1, at="epochepoch-13")))
        assert (page.count, page.next, page.previous) == (13, 2, None)
        assert self.service.query("at") == "epochepoch-13"

    def test_a_conversation_is_read_backwards(self) -> None:
        body = {"meta": {"older": "x1", "took": 0}, "messages": [message(13)]}
        self.service.script = [Canned(200, body)] * 2
        talk = success(self.world.start(self.client.conversation(2)))
        assert (talk.older, talk.messages[0].seq) == ("x1", 13)
        success(self.world.start(self.client.conversation(2, before=talk.older)))
        assert self.service.query("with") == "2"
        assert self.service.query("before") == "x1"

    def test_the_end_of_the_inbox_is_a_cursor(self) -> None:
        self.service.script = [polled(count=5, cursor="epochepoch-5")]
        assert success(self.world.start(self.client.cursor())) == "epochepoch-5"
        assert self.service.query("since") == "now"
        assert self.service.query("wait") == "0"

    def test_a_poll_may_take_longer_than_a_call(self) -> None:
        self.service.script = [Hold()]
        polling = self.world.start(self.client.poll("0", 55))
        self.world.pass_time(60)
        self.world.answer(polled(1, waited=54_000))
        assert success(polling).waited == 54.0

    def test_a_cursor_of_another_history_has_its_own_error(self) -> None:
        self.service.script = [problem(410, "cursor_epoch")]
        failure(self.world.start(self.client.poll("abc", 1)), HistoryChanged)

    def test_a_request_that_never_left_says_so(self) -> None:
        assert not Unreachable("refused", sent=False).sent


class Refusing:
    """A network on which no connection to the service can be made until `listening` is set."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.listening = False

    def request(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        if self.listening:
            asked: Deferred[Any] = self._http.request(*arguments, **options)
            return asked
        return fail(error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))


class TestWaitingForTheService:
    def setup_method(self) -> None:
        self.world = World()
        self.network = Refusing(self.world.http)

    def client(self, wait_for_service: bool) -> ChatClient:
        return ChatClient(
            "http://chat.example",
            "chatd_token",
            wait_for_service=wait_for_service,
            http=self.network,
            clock=self.world.clock,
        )

    def test_a_call_waits_for_a_service_that_is_not_there_yet(self) -> None:
        asking = self.world.start(self.client(True).me())
        self.world.pass_time(1)
        assert not asking.called
        self.network.listening = True
        self.world.service.script = [Canned(200, ANN)]
        self.world.pass_time(30)
        assert success(asking).id == 1

    def test_a_call_that_need_not_wait_fails_at_once(self) -> None:
        asking = self.world.start(self.client(False).me())
        assert str(failure(asking, Unreachable)) == "Connection refused"
        assert self.world.clock.getDelayedCalls() == []

    def test_a_service_that_has_answered_once_is_waited_for(self) -> None:
        client = self.client(False)
        self.network.listening = True
        self.world.service.script = [problem(404, "user_not_found"), Canned(200, ANN)]
        failure(self.world.start(client.user(7)), APIError)
        self.network.listening = False
        asking = self.world.start(client.me())
        self.world.pass_time(1)
        assert not asking.called
        self.network.listening = True
        self.world.pass_time(30)
        assert success(asking).id == 1


@pytest.mark.parametrize(
    "url", ["http://h:8080", "http://h:8080/", "http://h:8080/api/v1", "http://h:8080/api/v1/"]
)
def test_the_base_url_may_name_the_api(url: str) -> None:
    world = World()
    client = ChatClient(url, http=world.http, polls=world.http, clock=world.clock)
    assert client._api == "http://h:8080/api/v1"


def test_a_client_closes_its_own_pools() -> None:
    from twisted.internet.testing import MemoryReactorClock

    async def life(make: Callable[..., Any]) -> None:
        async with make("http://h", reactor=MemoryReactorClock()):
            pass

    done = Deferred.fromCoroutine(life(ChatClient))
    assert done.called

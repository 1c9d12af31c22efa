"""The simulated clients: chatd's own library, over simulated connections."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from chatd.client import APIError, ChatClient, ChatError, HistoryChanged
from chatd.client.client import FollowTransport
from chatd.client.values import Sent as SentMessage
from tests.history import ACKNOWLEDGED, REFUSED, UNKNOWN, Seen, Sent, Stored

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SENDS: Final = 8
LONG: Final = 8000
"""Characters of a long message: a few of them fill the window of a connection."""
GRACE_SECONDS: Final = 1.1
"""In which a revocation takes effect, unless threads do not get to run."""
NOTICED_SECONDS: Final = 60.0
"""After which every daemon knows that a standby has taken over."""
URL: Final = "http://127.0.0.1:8080"


@implementer(IBodyProducer)
class _Body:
    """The body of a request, written at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class AgentRequester:
    """A `chatd.client.exchange.Requester` on Twisted's `Agent`, of which treq is a layer.

    Half of the time of a simulation would go into treq's parsing of URLs.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        params: Sequence[tuple[str, str]],
        data: bytes | None,
        **_: object,
    ) -> Deferred[Any]:
        """Send a request; fires with the response once its headers have arrived."""
        target = f"{url}?{urlencode(params)}" if params else url
        fields = Headers({name: [value] for name, value in headers.items()})
        body = None if data is None else _Body(data)
        result: Deferred[Any] = self._agent.request(method.encode(), target.encode(), fields, body)
        return result


class Client:
    """A program with an account, whose steps the simulation schedules."""

    def __init__(
        self, simulation: Simulation, name: str, user_id: int = 0, token: str = ""
    ) -> None:
        self.simulation = simulation
        self.name = name
        self.user_id = user_id
        self.token = token
        self.ended = False
        self.finishing = False
        self._failure: Failure | None = None
        clock = simulation.clock
        self._pool = HTTPConnectionPool(clock, persistent=True)
        self._pool.retryAutomatically = False
        agent = Agent.usingEndpointFactory(clock, simulation.network, pool=self._pool)
        http = AgentRequester(agent)
        tape = simulation.tape
        self.client = ChatClient(
            URL,
            token or None,
            http=http,
            polls=http,
            clock=clock,
            now=clock.seconds,
            random=lambda: tape.below(100) / 100,
        )
        self._running: Deferred[Any] | None = None

    def start(self, work: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
        """Start what this client does."""
        self._running = Deferred.fromCoroutine(work)

        def end(result: Any) -> Any:
            self.ended = True
            if isinstance(result, Failure):
                self._failure = result
                return None
            return result

        return self._running.addBoth(end)

    def finish(self) -> None:
        """Come to an end soon."""
        self.finishing = True

    @property
    def is_done(self) -> bool:
        """Whether nothing more is expected, once nobody sends any more."""
        return self.ended

    def stop(self) -> Deferred[Any]:
        """End at once, and close all connections."""
        if self._running is not None and not self.ended:
            self._running.cancel()
        return Deferred.fromCoroutine(self.client.close()).addCallback(
            lambda _: self._pool.closeCachedConnections()
        )

    def problems(self, stored: Mapping[int, Sequence[Stored]]) -> list[str]:
        """What was wrong, given what the inboxes contain at the end."""
        if self._failure is None or self._failure.check(CancelledError):
            return []
        return [f"{self.name} failed: {self._failure.getTraceback()}"]

    async def send(self, to: int, text: str, key: str) -> None:
        """Send a message until it is acknowledged or given up, and record that."""
        simulation = self.simulation
        began = simulation.time
        simulation.sent_at[text] = simulation.clock.seconds()
        outcome, seq = ACKNOWLEDGED, 0
        try:
            sent = await self.send_once(to, text, key)
            seq = sent.message.seq
            simulation.reached["replayed"] += sent.replayed
        except APIError as error:
            outcome = UNKNOWN if error.retryable else REFUSED
            simulation.reached[f"send {outcome}: {error.code}"] += 1
            if outcome == REFUSED:
                # Nothing is wrong with any of these sends.
                simulation.problems.append(f"refused: {text!r}: {error}")
        except ChatError:
            outcome = UNKNOWN
            simulation.reached["send without an answer"] += 1
        simulation.events.append(
            Sent(began, simulation.time, self.user_id, to, text, outcome, seq)  # type: ignore[arg-type]
        )

    async def send_once(self, to: int, text: str, key: str) -> SentMessage:
        """Send a message with a key until it is acknowledged; raises `ChatError`."""
        self.simulation.sending += 1
        try:
            return await self.client.send(to, text, key=key)
        finally:
            self.simulation.sending -= 1

    async def register(self, name: str) -> None:
        """Create an account and log in."""
        account = await self.client.register(name, f"{name}@example.org", "password")
        token = await self.client.log_in(name, "password")
        self.user_id, self.token = account.id, str(token)


class Sender(Client):
    """Sends messages to everybody, some twice at once, with the same key."""

    async def run(self) -> None:
        simulation = self.simulation
        for number in range(SENDS):
            if not self.finishing:
                await simulation.pause()
            to = simulation.tape.choice(list(simulation.users))
            text = f"{self.name}-{number}"
            if simulation.tape.one_in(8):
                text += "." * LONG
            key = f"{self.name}-{number}"
            if simulation.tape.one_in(4):
                again = Deferred.fromCoroutine(self.send_once(to, text, key))
                again.addErrback(lambda failure: failure.trap(ChatError) and None)
                simulation.reached["two sends with one key at once"] += 1
            await self.send(to, text, key)


class Inbox(Client):
    """Shows its inbox, and begins again when the service says that the history is another."""

    def __init__(
        self, simulation: Simulation, name: str, user_id: int = 0, token: str = ""
    ) -> None:
        super().__init__(simulation, name, user_id, token)
        self.seen: list[Stored] = []
        self.resyncs = 0
        # How often a copy had been put back when it began at the beginning.
        self._put_backs = 0
        self._found: list[str] = []

    @property
    def is_done(self) -> bool:
        return self.ended or self.seen == self.simulation.inbox(self.user_id)

    def _begin_again(self, _: HistoryChanged) -> str:
        simulation = self.simulation
        since = simulation.clock.seconds() - simulation.faults.put_back_at
        if simulation.put_backs == self._put_backs and since > NOTICED_SECONDS:
            self._found.append(f"{self.name} was told of another history, but it is the same")
        self._put_backs = simulation.put_backs
        self.seen.clear()
        self.resyncs += 1
        simulation.reached["told of another history"] += 1
        return "0"

    def problems(self, stored: Mapping[int, Sequence[Stored]]) -> list[str]:
        inbox = list(stored.get(self.user_id, ()))
        wrong = [] if self.seen == inbox else [f"divergent: {self.name} shows {self.seen}"]
        return [*super().problems(stored), *wrong, *self._found]


class Follower(Inbox):
    """Follows its inbox from the beginning, by a stream or by polls."""

    async def run(self) -> None:
        simulation = self.simulation
        transport: FollowTransport = simulation.tape.choice(("auto", "poll", "stream"))
        following = self.client.follow(
            "0",
            wait=20.0,
            transport=transport,
            on_resync=self._begin_again,
        )
        async for message in following:
            stored = Stored(message.seq, message.sent_by, message.text)
            reader = f"{self.name}-{self.resyncs}"
            simulation.events.append(
                Seen(0, simulation.time, self.user_id, len(self.seen), [stored], None, reader)
            )
            self.seen.append(stored)
            if simulation.tape.one_in(8) and not self.finishing:
                await simulation.pause()


class Reader(Client):
    """Reads pages of its inbox."""

    async def run(self) -> None:
        simulation = self.simulation
        while not self.finishing:
            await simulation.pause()
            began = simulation.time
            try:
                page = await self.client.page(limit=100)
            except ChatError:
                continue
            messages = [
                Stored(message.seq, message.sent_by, message.text)
                for message in reversed(page.messages)
            ]
            after = page.count - len(messages)
            simulation.events.append(
                Seen(began, simulation.time, self.user_id, after, messages, page.count)
            )


class Poller(Inbox):
    """Polls its inbox a few messages at a time, without the library's care."""

    async def run(self) -> None:
        simulation = self.simulation
        cursor = "0"
        while True:
            limit = 1 + simulation.tape.below(4)
            wait = simulation.tape.choice((0.0, 1.0, 20.0))
            began = simulation.time
            try:
                poll = await self.client.poll(cursor, wait, limit)
            except HistoryChanged as changed:
                cursor = self._begin_again(changed)
                continue
            except ChatError:
                await deferLater(simulation.clock, 1.0)
                continue
            messages = [Stored(each.seq, each.sent_by, each.text) for each in poll.messages]
            # What others have committed may come later.
            is_exact = simulation.node_count == 1 or (wait == 0 and not messages)
            simulation.events.append(
                Seen(
                    began,
                    simulation.time,
                    self.user_id,
                    len(self.seen),
                    messages,
                    poll.count if is_exact else None,
                    f"{self.name}-{self.resyncs}",
                )
            )
            cursor = poll.cursor
            self.seen += messages
            simulation.reached["long poll answered late"] += poll.waited > 0 and bool(messages)
            if not messages:
                await simulation.pause()


class Revoker(Client):
    """Follows its inbox with a second token, and revokes that: then nothing more may come."""

    def __init__(
        self, simulation: Simulation, name: str, user_id: int = 0, token: str = ""
    ) -> None:
        super().__init__(simulation, name, user_id, token)
        # By the name of who had the token: when, and of which history of the database.
        self._revoked: dict[str, tuple[float, int]] = {}
        self._found: list[str] = []

    def problems(self, stored: Mapping[int, Sequence[Stored]]) -> list[str]:
        return [*super().problems(stored), *self._found]

    async def run(self) -> None:
        simulation = self.simulation
        name = f"user{list(simulation.users).index(self.user_id) + 1}"
        for number in range(3):
            if not self.finishing:
                await simulation.pause()
            other = Client(simulation, f"{self.name}-{number}", self.user_id)
            try:
                other.token = await other.client.log_in(name, "password", label=other.name)
            except ChatError:
                continue
            other.start(self._follow(other))
            if not self.finishing:
                await simulation.pause()
            way = simulation.tape.choice((self._revoke_others, self._log_out, self._revoke_one))
            put_backs = simulation.put_backs
            try:
                await way(other)
            except ChatError:
                simulation.reached["revocation without an answer"] += 1
            else:
                await deferLater(simulation.clock, GRACE_SECONDS)
                while simulation.is_busy:
                    await deferLater(simulation.clock, GRACE_SECONDS)
                self._revoked[other.name] = (simulation.clock.seconds(), put_backs)
                simulation.reached["revocation"] += 1
                if simulation.put_backs == put_backs and simulation.is_waiting(other.token):
                    self._found.append(f"{other.name} still waits after its revocation")
                await self.send(self.user_id, f"{other.name}-revoked", key=f"{other.name}-revoked")
                await self._expect_refusal(other)
            if not other.ended:
                await other.stop()

    async def _revoke_others(self, _: Client) -> None:
        await self.client.revoke_other_tokens()

    async def _log_out(self, other: Client) -> None:
        # From another place; what follows the inbox is not told.
        client = Client(self.simulation, other.name, self.user_id, other.token)
        try:
            await client.client.log_out()
        finally:
            await client.stop()

    async def _revoke_one(self, other: Client) -> None:
        for token in await self.client.tokens():
            if token.label == other.name:
                await self.client.revoke_token(token.id)

    async def _expect_refusal(self, other: Client) -> None:
        try:
            await other.client.me()
        except ChatError:
            return
        if self.simulation.put_backs == self._revoked[other.name][1]:
            self._found.append(f"{other.name} was answered after its revocation")

    async def _follow(self, other: Client) -> None:
        simulation = self.simulation
        async for message in other.client.follow("0", wait=20.0):
            # What was on its way already may arrive; a copy that is put back knows the token.
            at, history = self._revoked.get(other.name, (inf, 0))
            if simulation.sent_at[message.text] > at and simulation.put_backs == history:
                self._found.append(f"{other.name} was told {message.text!r} after its revocation")

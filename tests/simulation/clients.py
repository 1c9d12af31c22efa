"""The simulated clients: chatd's own library, over simulated connections."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from chatd.client import APIError, ChatClient, ChatError
from tests.history import ACKNOWLEDGED, REFUSED, UNKNOWN, Seen, Sent, Stored

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SENDS: Final = 8
URL: Final = "http://127.0.0.1:8080"
NOT_KNOWN: Final = frozenset({"outcome_unknown"})


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
        http = HTTPClient(agent)
        tape = simulation.tape
        self.client = ChatClient(
            URL,
            token or None,
            http=http,
            polls=http,
            clock=clock,
            now=lambda: clock.seconds(),
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

    async def register(self, name: str) -> None:
        """Create an account and log in."""
        account = await self.client.register(name, f"{name}@example.org", "password")
        token = await self.client.log_in(name, "password")
        self.user_id, self.token = account.id, str(token)


class Sender(Client):
    """Sends messages to everybody, each with a key, until it is acknowledged or given up."""

    async def run(self) -> None:
        simulation = self.simulation
        for number in range(SENDS):
            if not self.finishing:
                await simulation.pause()
            to = simulation.tape.choice(list(simulation.users))
            text = f"{self.name}-{number}"
            began = simulation.time
            outcome, seq = ACKNOWLEDGED, 0
            try:
                sent = await self.client.send(to, text, key=f"{self.name}-{number}")
                seq = sent.message.seq
            except APIError as error:
                known = error.status < 500 and error.code not in NOT_KNOWN
                outcome = REFUSED if known and error.status != 429 else UNKNOWN
                simulation.reached[f"send {outcome}: {error.code}"] += 1
            except ChatError:
                outcome = UNKNOWN
                simulation.reached["send without an answer"] += 1
            simulation.events.append(
                Sent(began, simulation.time, self.user_id, to, text, outcome, seq)  # type: ignore[arg-type]
            )


class Follower(Client):
    """Follows its inbox from the beginning, by a stream or by polls."""

    def __init__(
        self, simulation: Simulation, name: str, user_id: int = 0, token: str = ""
    ) -> None:
        super().__init__(simulation, name, user_id, token)
        self.seen: list[Stored] = []

    async def run(self) -> None:
        simulation = self.simulation
        transport = simulation.tape.choice(("auto", "poll", "stream"))
        self._follow = self.client.follow("0", wait=20.0, transport=transport)  # type: ignore[arg-type]
        async for message in self._follow:
            stored = Stored(message.seq, message.sent_by, message.text)
            simulation.events.append(
                Seen(0, simulation.time, self.user_id, len(self.seen), [stored], None, self.name)
            )
            self.seen.append(stored)
            if simulation.tape.one_in(8) and not self.finishing:
                await simulation.pause()

    @property
    def is_done(self) -> bool:
        return self.ended or len(self.seen) >= self.simulation.count(self.user_id)


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


"""Processes on PostgreSQL and NATS, within this one: store, bus and domain of a daemon."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from chatd.bus.nats import NatsBus
from chatd.compose.databases import microseconds
from chatd.compose.domain import compose_domain
from chatd.compose.storage import compose_store_and_bus
from chatd.config import load
from chatd.metrics import Metrics
from chatd.model import BEGINNING, Cursor, Draft, ReadAfter, Session
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import digest
from tests.doubles import InlineExecutor, cheap_hasher
from tests.postgres_server import sleep

POLL_SECONDS = 50.0


class Node:
    """The components of a process, without HTTP."""

    def __init__(self, db: str, bus: str) -> None:
        from twisted.internet import reactor

        settings, _ = load({"db": db, "bus": bus}, {})
        self.metrics = Metrics()
        store, nats_bus = compose_store_and_bus(settings, reactor, self.metrics)
        assert isinstance(store, PostgresStore)
        assert isinstance(nats_bus, NatsBus)
        self.store = store
        self.bus = nats_bus
        clock: Any = reactor
        self.components = compose_domain(
            settings,
            store,
            nats_bus,
            self.metrics,
            clock=clock,
            now=microseconds,
            hashing=InlineExecutor(),
            hasher=cheap_hasher(),
            rates=None,
        )
        self.followers: list[Follower] = []

    async def open(self) -> None:
        """Start the store and the bus."""
        await self.store.open()
        await self.bus.start(self.components.subscriber)

    async def close(self) -> None:
        """Stop everything."""
        for follower in self.followers:
            follower.stopping = True
        self.components.notifier.drain()
        for follower in self.followers:
            await follower.ended
        await self.components.deliveries.stop()
        await self.components.accounts.stop()
        await self.bus.stop()
        await self.store.close()

    def die(self) -> None:
        """Lose the connection to NATS as by SIGKILL: nothing is announced and nobody is told."""
        link = self.bus._link
        link._announcer.disconnect()
        link._subjects = type(link._subjects)("dead", "dead")
        assert link._protocol is not None
        link._protocol.transport.abortConnection()

    async def commit(self, sent_by: int, received_by: int, text: str) -> None:
        """Commit a message, without waking anybody in this process."""
        await self.store.append([Draft(sent_by, received_by, text)])

    async def follow(self, user_id: int) -> Follower:
        """Receive a user's messages by long polls at this process."""
        token = digest(f"token of {user_id}")
        await self.store.add_token(user_id, token)
        self.followers.append(Follower(self, Session(user_id, token)))
        return self.followers[-1]

    @property
    def port(self) -> int:
        """The port of the server that it is connected to, 0 if there is none."""
        protocol = self.bus._link._protocol
        return 0 if protocol is None else int(protocol.transport.getPeer().port)

    async def until(self, condition: Any, seconds: float = 10.0) -> float:
        """Wait until a condition is true; returns how many seconds that took."""
        from twisted.internet import reactor

        clock: Any = reactor
        began = clock.seconds()
        while not condition():
            assert clock.seconds() - began < seconds
            await sleep(0.005)
        return float(clock.seconds() - began)


class Follower:
    """A client that receives the messages of one user by long polls."""

    def __init__(self, node: Node, session: Session) -> None:
        self.texts: list[str] = []
        self._node = node
        self._session = session
        self._cursor: Cursor = BEGINNING
        self.stopping = False
        """Set before the process drains."""
        self.ended: Deferred[None] = Deferred.fromCoroutine(self._poll())

    async def _poll(self) -> None:
        while not self.stopping:
            polled = await self._node.components.chats.poll(
                self._session, self._cursor, 100, POLL_SECONDS
            )
            self.texts += [message.text for message in polled.messages]
            self._cursor = polled.cursor

    @property
    def held(self) -> bool:
        """Whether its poll is held now."""
        waiters = self._node.components.notifier.waiters_of(self._session.user_id)
        return any(waiter.held for waiter in waiters)

    async def receive(self, *texts: str, seconds: float = 10.0) -> float:
        """Wait until exactly these texts have arrived; returns how many seconds that took."""
        took = await self._node.until(lambda: len(self.texts) >= len(texts), seconds)
        assert self.texts == list(texts)
        return took


async def settle(*nodes: Node) -> None:
    """Wait until all polls are held, and nobody is woken or checked any more because of a new
    connection or subscription."""
    for node in nodes:
        link = node.bus._link
        await node.until(lambda node=node: all(follower.held for follower in node.followers))
        await node.until(lambda link=link: link._unchecked == link._unconfirmed == set())
        await node.until(lambda node=node: node.bus._wake_all_timer is None)


def cached(node: Node, user_id: int, after: int) -> tuple[str, ...] | None:
    """The texts after a seq, if they are in the memory of a process."""
    found = node.store.read_cached(ReadAfter(user_id, after, 100), listening=True)
    return None if found is None else tuple(message.text for message in found.messages)

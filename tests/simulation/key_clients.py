"""Simulated clients that use a key for different messages, and such as use none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from chatd.client import APIError, ChatError
from chatd.client.wire import SentBody
from chatd.store.postgres.housekeeping import HOUSEKEEPING_SECONDS
from chatd.store.postgres.retry import DEADLINE_SECONDS
from chatd.store.sharded.claims import CLAIM_SECONDS
from tests.history import ACKNOWLEDGED, REFUSED, UNKNOWN, Outcome, Sent, Stored
from tests.simulation.clients import Client, Sender

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

ROUNDS: Final = 4
NOBODY: Final = 4711
REUSED: Final = "idempotency_key_reused"


class KeyReuser(Sender):
    """Sends different messages to two users with the same key: at most one of them may be stored.

    In the end, when nothing fails, it uses a key whose first use was refused, and sometimes one
    that was used days before.
    """

    def __init__(
        self, simulation: Simulation, name: str, user_id: int = 0, token: str = ""
    ) -> None:
        super().__init__(simulation, name, user_id, token)
        # Of which at most one may be stored.
        self._pairs: list[list[str]] = []

    def problems(self, stored: Mapping[int, Sequence[Stored]]) -> list[str]:
        texts = {message.text for inbox in stored.values() for message in inbox}
        twice = [pair for pair in self._pairs if texts.issuperset(pair)]
        return [*super().problems(stored), *(f"key: both are stored: {pair}" for pair in twice)]

    async def run(self) -> None:
        simulation = self.simulation
        for number in range(ROUNDS):
            if not self.finishing:
                await simulation.pause()
            await self._use_twice(f"{self.name}-{number}")
        while not self.finishing:
            await simulation.pause()
        await self._use_refused_key()
        if simulation.tape.one_in(5):
            await self._use_old_key()

    async def _use_twice(self, key: str) -> None:
        simulation = self.simulation
        users = list(simulation.users)
        first = simulation.tape.choice(users)
        users.remove(first)
        second = simulation.tape.choice(users)
        put_backs = simulation.put_backs
        if simulation.tape.one_in(2):
            # What became of the first one is often unknown.
            outcomes = [await self._send_one(first, key, repeat=False)]
            outcomes.append(await self._send_one(second, key))
        else:
            sends = [self._send_one(to, key) for to in (first, second)]
            outcomes = await gatherResults([Deferred.fromCoroutine(each) for each in sends])
        if simulation.put_backs == put_backs:
            self._pairs.append([_text(key, to) for to in (first, second)])
            if outcomes == [REFUSED, REFUSED]:
                simulation.problems.append(f"key: both uses of {key!r} were refused")

    async def _use_refused_key(self) -> None:
        simulation = self.simulation
        for number in count():
            key = f"{self.name}-refused-{number}"
            try:
                await _send_at_most_once(self, NOBODY, "nothing", key)
            except APIError as error:
                if error.code == "user_not_found":
                    break
                if not error.retryable:
                    simulation.problems.append(f"key: {key!r} to nobody: {error}")
                    break
            except ChatError:
                pass
            # Something failed nevertheless. What has become of the key is not known: on several
            # servers it may stay with this message, see `chatd.store.sharded.claims`.
            await deferLater(simulation.clock, 1.0)
        await self.send(self.user_id, f"{key}-again", key)

    async def _use_old_key(self) -> None:
        """Use a key again once it is forgotten; nobody repeats a send for so long."""
        simulation, clock = self.simulation, self.simulation.clock
        await deferLater(clock, DEADLINE_SECONDS)
        while simulation.sending:
            await deferLater(clock, 1.0)
        # The clock may have been set back since.
        simulation.now.offset += 2 * CLAIM_SECONDS * 1_000_000
        for node in tuple(simulation.nodes):
            # Those that run on would doubt that days have passed.
            simulation.kill(node)
        await deferLater(clock, HOUSEKEEPING_SECONDS + DEADLINE_SECONDS)
        simulation.reached["key used again after days"] += 1
        await self.send(self.user_id, f"{self.name}-days-later", f"{self.name}-0")

    async def _send_one(self, to: int, key: str, *, repeat: bool = True) -> Outcome:
        simulation = self.simulation
        text = _text(key, to)
        began = simulation.time
        simulation.sent_at[text] = simulation.clock.seconds()
        outcome: Outcome = UNKNOWN
        seq = 0
        try:
            if repeat:
                seq = (await self.send_once(to, text, key)).message.seq
            else:
                seq = await _send_at_most_once(self, to, text, key)
            outcome = ACKNOWLEDGED
        except APIError as error:
            if error.code == REUSED:
                outcome = REFUSED
                simulation.reached["key refused"] += 1
            elif not error.retryable:
                simulation.problems.append(f"refused: {text!r}: {error}")
        except ChatError:
            pass
        simulation.events.append(Sent(began, simulation.time, self.user_id, to, text, outcome, seq))
        return outcome


class KeylessSender(Client):
    """Sends without keys; what is not acknowledged is not sent again."""

    async def run(self) -> None:
        simulation = self.simulation
        for number in range(2 * ROUNDS):
            if not self.finishing:
                await simulation.pause()
            to = simulation.tape.choice(list(simulation.users))
            text = f"{self.name}-{number}"
            began = simulation.time
            simulation.sent_at[text] = simulation.clock.seconds()
            outcome: Outcome = UNKNOWN
            seq = 0
            try:
                seq = await _send_at_most_once(self, to, text)
                outcome = ACKNOWLEDGED
            except ChatError:
                pass
            simulation.events.append(
                Sent(began, simulation.time, self.user_id, to, text, outcome, seq)
            )


def _text(key: str, to: int) -> str:
    return f"{key} to {to}"


async def _send_at_most_once(client: Client, to: int, text: str, key: str | None = None) -> int:
    """Send a message without repeating that; returns its seq, or raises `ChatError`."""
    body = {"user_id": to, "message": text}
    sent, _ = await client.client._caller.call(
        "POST", "/chats/", SentBody, body=body, key=key, idempotent=False
    )
    return sent.seq

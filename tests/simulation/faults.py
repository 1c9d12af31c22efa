"""What goes wrong in a run: chosen by the tape, done to processes, connections and databases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from tests import history
from tests.simulation.database import Named
from tests.simulation.network import Link

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

Action = Callable[[], None]


class Faults:
    """Does faults to a run, until `active` is False."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._tape = simulation.tape
        self.active = True
        self.stalled: set[str] = set()
        """The names of actions that do not happen for a while."""
        self._copied_at: int | None = None
        self._put_backs: list[tuple[int, int]] = []
        """For each copy of the database that was put back: when it was made, and put back."""
        self.put_back_at = float("-inf")
        """When a copy was put back last, in seconds."""

    def once(self) -> None:
        """Do one."""
        simulation = self._simulation
        network, nodes, database = simulation.network, simulation.nodes, simulation.database
        faults: list[Named] = [("jump", self._jump)] + [("stall", self._stall)] * 4
        if network.links:
            faults += [("cut", self._cut)] * 3 + [("slow reader", self._pause_reader)] * 2
        if len(nodes) < simulation.node_count:
            faults += [("start", simulation.start_node)] * (2 if nodes else 6)
        for node in nodes:
            faults.append(("crash", partial(simulation.kill, node)))
            if node.is_serving:
                faults.append(("drain", node.stop))
        if nodes:
            faults.append(("copy", self._copy))
            if self._copied_at is not None:
                faults += [("copy put back", self._put_back)] * 2
        name, fault = self._tape.choice(faults + database.faults(nodes))
        simulation.reached[name] += 1
        simulation.do(name, fault)

    def end(self) -> None:
        """From now on all works again."""
        self.active = False
        self.stalled.clear()
        simulation = self._simulation
        simulation.database.mend(simulation.nodes)
        for link in simulation.network.links:
            if link.broken:
                link.reset(link.ends)
            for end in link.ends:
                end.reading = True

    def _stall(self) -> None:
        """Something that could happen does not for a while, such as a result that is passed on.

        So what is rare, namely that everything else is faster, happens in some of the runs.
        """
        possible = [name for name, _ in self._simulation.actions() if name not in self.stalled]
        if self.stalled and (not possible or self._tape.one_in(2)):
            self.stalled.clear()
        elif possible:
            self.stalled.add(self._tape.choice(possible))

    def _jump(self) -> None:
        self._simulation.now.offset += self._tape.choice((-60, 60, -7200, 86400)) * 1_000_000

    def _cut(self) -> None:
        link: Link = self._tape.choice(self._simulation.network.links)
        ends = self._tape.choice((link.ends, (link.client,), (link.server,), ()))
        if not ends:
            self._simulation.reached["half-open connection"] += 1
        link.reset(ends)

    def _pause_reader(self) -> None:
        end = self._tape.choice(self._simulation.network.links).client
        end.reading = not end.reading

    def _copy(self) -> None:
        if self._simulation.database.copy():
            self._copied_at = self._simulation.time

    def _put_back(self) -> None:
        """The database is what it was, as if a file was put back, or an old standby took over."""
        simulation = self._simulation
        assert self._copied_at is not None
        for node in simulation.database.put_back(list(simulation.nodes)):
            simulation.kill(node)
        self._put_backs.append((self._copied_at, simulation.time))
        self.put_back_at = simulation.clock.seconds()

    @property
    def put_backs(self) -> int:
        """How often a copy of the database was put back."""
        return len(self._put_backs)

    def excused(self, events: list[history.Event]) -> list[history.Event]:
        """The history, without what a copy that was put back made false."""
        if not self._put_backs:
            return events
        kept: list[history.Event] = []
        for event in events:
            forgotten = any(
                event.ended >= made_at and event.began <= put_back_at
                for made_at, put_back_at in self._put_backs
            )
            if isinstance(event, history.Sent):
                kept.append(structs.replace(event, outcome="unknown") if forgotten else event)
            elif not forgotten and event.reader is None:
                kept.append(event)
        return kept

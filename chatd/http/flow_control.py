"""Back-pressure of one connection, in both directions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from chatd.http.eager_write import unsent_bytes
from chatd.http.pull_producer import PullProducerAdapter


class FlowControl:
    """Whether the transport may be written to and read from; pauses the producer if not.

    `write_paused`: the transport has more to send than it wants to buffer.
    `read_paused`: the transport does not read, because the connection has enough to do.
    """

    __slots__ = ("_producer", "_transport", "_unsent", "read_paused", "write_paused")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.write_paused = False
        self.read_paused = False
        # Writes the response being sent; a push producer.
        self._producer: Any = None
        self._unsent = sys.maxsize

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.write_paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self.write_paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def pause_reading(self) -> None:
        """Stop reading from the transport."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read from the transport again."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resumeProducing()

    def register_producer(
        self,
        producer: Any,
        streaming: bool,
        clock: IReactorTime,
        on_error: Callable[[Failure], object],
    ) -> None:
        """Have `producer` write the response: a push producer if `streaming`, else a pull producer.

        `clock` and `on_error` are for pull producers. Raises RuntimeError if there is a producer.
        """
        if self._producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self._producer} was never "
                "unregistered."
            )
        if streaming:
            self._producer = producer
            if self.write_paused:
                producer.pauseProducing()
        else:
            self._producer = adapter = PullProducerAdapter(producer, clock, on_error)
            if not self.write_paused:
                adapter.resumeProducing()

    def unregister_producer(self) -> None:
        """Forget the producer: it has written all it has."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullProducerAdapter):
            producer.stop()

    def stop_producer(self) -> None:
        """Stop the producer: nothing can be written any more."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def made_progress(self) -> bool:
        """Whether the client has read some, but not all, of what was unsent at the last call."""
        unsent = unsent_bytes(self._transport)
        before, self._unsent = self._unsent, unsent
        return 0 < unsent < before

"""Adapts pull producers to a connection that pauses and resumes push producers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IPushProducer)
class PullProducerAdapter:
    """Asks a pull producer for one piece in each reactor iteration, unless it is paused.

    If the producer raises, it is stopped and `on_error` is called with the Failure.
    """

    __slots__ = ("_call", "_clock", "_on_error", "_producer", "_running")

    def __init__(
        self, producer: IPullProducer, clock: IReactorTime, on_error: Callable[[Failure], object]
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._on_error = on_error
        self._running = False
        self._call: IDelayedCall | None = None

    def resumeProducing(self) -> None:
        """Ask for pieces from the next iteration on."""
        if not self._running:
            self._running = True
            self._call = self._clock.callLater(0, self._pull)

    def pauseProducing(self) -> None:
        """Ask for nothing until `resumeProducing`."""
        self._running = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    stop = pauseProducing

    def stopProducing(self) -> None:
        """Pause for good, and stop the producer."""
        self.stop()
        self._producer.stopProducing()

    def _pull(self) -> None:
        self._call = None
        try:
            self._producer.resumeProducing()
        except Exception:
            self.stop()
            self._on_error(Failure())
            return
        if self._running:
            self._call = self._clock.callLater(0, self._pull)

"""Pull producers on a channel that pushes."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IPushProducer)
class PullProducerAdapter:
    """Asks a pull producer for one piece a reactor turn, while there is room for it."""

    __slots__ = ("_call", "_clock", "_failed", "_producer", "_running")

    def __init__(
        self, producer: IPullProducer, clock: IReactorTime, failed: Callable[[Failure], object]
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._failed = failed
        self._running = False
        self._call: IDelayedCall | None = None

    def resumeProducing(self) -> None:
        """Go on, from the next turn."""
        if not self._running:
            self._running = True
            self._call = self._clock.callLater(0, self._pull)

    def pauseProducing(self) -> None:
        """Do not ask for more until `resumeProducing`."""
        self._running = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    stop = pauseProducing

    def stopProducing(self) -> None:
        """Stop, and tell the producer."""
        self.stop()
        self._producer.stopProducing()

    def _pull(self) -> None:
        self._call = None
        try:
            self._producer.resumeProducing()
        except Exception:
            self.stop()
            self._failed(Failure())
            return
        if self._running:
            self._call = self._clock.callLater(0, self._pull)

"""Registry of waiting polls by user: wakes them for messages, revocations and shutdown.

A poll registers before it reads and reads again after it was woken (architecture, invariant 3):
whatever is committed after its first read finds it registered, so that a wake-up may come late but
is never lost. The cost of a wake-up depends on the polls woken, not on all that are held.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

from chatd.domain.session_expiry import SessionExpiry
from chatd.interfaces import IInterest
from chatd.model import Session, WakeReason

HELD_PER_USER: Final = 8


class Waiter(Protocol):
    """What the notifier requires of a poll or stream.

    It is registered with `Notifier.add`, counted as held from `Notifier.hold` until it calls
    `Notifier.release`, and unregistered with `Notifier.remove`.
    """

    session: Session
    seq: int
    """The seq of the last message that the poll has seen; valid while it is held."""

    @property
    def held(self) -> bool:
        """Whether the poll is waiting now."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether it knows that there may be messages after `seq`, though it is held."""
        ...

    @property
    def wants_changes(self) -> bool:
        """Whether changes of its account wake it, too."""
        ...

    def wake(self, reason: WakeReason) -> None:
        """Stop waiting; a poll that is not waiting does not begin to wait."""
        ...

    def revoke(self) -> None:
        """End the poll as unauthorized."""
        ...


class RecordsHold(Protocol):
    """A record of a request that notes how long its poll or stream was held."""

    held_seconds: float


class Notifier:
    """The waiters of one process.

    At most `max_held` polls are held at once: further ones are woken at once with
    `WakeReason.OVERLOAD`, unless they are the only ones of their users: then one of a user who has
    several is. So accounts with as many as they may have do not keep others from having one.
    At most `HELD_PER_USER` of them belong to one user: beyond that, the oldest is woken with
    `WakeReason.SUPERSEDED`. `expiry` ends those whose sessions expire.
    `interest` is told which users have waiters.
    """

    def __init__(
        self, *, max_held: int, expiry: SessionExpiry, interest: IInterest | None = None
    ) -> None:
        self._interest = interest
        self.max_held = max_held
        self._expiry = expiry
        self._waiters: dict[int, list[Waiter]] = {}
        # Users that had several waiters when one was last held; as a set, in order.
        self._crowded: dict[int, None] = {}
        self._held = 0
        self._draining = False

    @property
    def held(self) -> int:
        """The number of held polls."""
        return self._held

    def add(self, waiter: Waiter) -> None:
        """Register a waiter: from now on events of its session wake or end it."""
        session = waiter.session
        waiters = self._waiters.get(session.user_id)
        if waiters is not None:
            waiters.append(waiter)
        else:
            self._waiters[session.user_id] = [waiter]
            if self._interest is not None:
                self._interest.watch(session.user_id)
        if session.expires_at is not None:
            self._expiry.watch(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Unregister a waiter that is not held; does nothing if it is not registered."""
        session = waiter.session
        waiters = self._waiters.get(session.user_id)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[session.user_id]
                self._crowded.pop(session.user_id, None)
                if self._interest is not None:
                    self._interest.unwatch(session.user_id)
            if session.expires_at is not None:
                self._expiry.unwatch(waiter)

    def hold(self, waiter: Waiter) -> None:
        """Count a registered waiter that has begun to wait.

        May wake this waiter or another one of the same user at once, to enforce the limits.
        """
        self._held += 1
        if self._draining:
            waiter.wake(WakeReason.DRAIN)
            return
        waiters = self._waiters[waiter.session.user_id]
        if len(waiters) > 1:
            self._crowded[waiter.session.user_id] = None
        if self._held > self.max_held:
            displaced = waiter if len(waiters) > 1 else self._find_displaced() or waiter
            displaced.wake(WakeReason.OVERLOAD)
        elif len(waiters) > HELD_PER_USER:
            self._supersede(waiters)

    def release(self) -> None:
        """Uncount a waiter that has stopped waiting, for whatever reason."""
        self._held -= 1

    def held_by_user(self) -> dict[int, list[Waiter]]:
        """The held waiters of each user that has any."""
        return {
            user_id: held
            for user_id, waiters in self._waiters.items()
            if (held := [waiter for waiter in waiters if waiter.held])
        }

    def waiters_of(self, user_id: int) -> Sequence[Waiter]:
        """The registered waiters of a user."""
        return self._waiters.get(user_id, ())

    def sessions(self, user_ids: Collection[int] | None = None) -> list[Session]:
        """The distinct sessions of the registered waiters of these users, or of all if None."""
        found = self._waiters.keys() if user_ids is None else user_ids
        return list(
            {waiter.session for user_id in found for waiter in self._waiters.get(user_id, ())}
        )

    def wake(self, user_ids: Collection[int]) -> int:
        """Wake the users' waiters for new messages; returns how many were held."""
        woken = 0
        for user_id in user_ids:
            for waiter in tuple(self._waiters.get(user_id, ())):
                woken += waiter.held
                waiter.wake(WakeReason.MESSAGE)
        return woken

    def wake_for_changes(self, user_ids: Collection[int]) -> int:
        """Wake those of the users' waiters that want changes; returns how many were held."""
        woken = 0
        for user_id in user_ids:
            waiters = self._waiters.get(user_id)
            if waiters is not None:
                for waiter in [each for each in waiters if each.wants_changes]:
                    woken += waiter.held
                    waiter.wake(WakeReason.MESSAGE)
        return woken

    def wake_all(self) -> int:
        """Wake all waiters, since messages may have been missed; returns how many were held."""
        return self.wake(tuple(self._waiters))

    def revoke(self, user_id: int, token: bytes | None) -> None:
        """End the user's polls that use `token`, or all of them if it is None, as unauthorized."""
        for waiter in tuple(self._waiters.get(user_id, ())):
            if token is None or token == waiter.session.token:
                waiter.revoke()

    def end(self, session: Session) -> None:
        """End the polls of a session as unauthorized."""
        for waiter in tuple(self._waiters.get(session.user_id, ())):
            if waiter.session == session:
                waiter.revoke()

    def drain(self) -> None:
        """Wake all held polls, and from now on every poll that begins to wait, for shutdown."""
        self._draining = True
        for waiters in tuple(self._waiters.values()):
            for waiter in tuple(waiters):
                if waiter.held:
                    waiter.wake(WakeReason.DRAIN)

    def _find_displaced(self) -> Waiter | None:
        """The oldest held waiter of a user who has several; each such user in turn."""
        while self._crowded:
            user_id = next(iter(self._crowded))
            del self._crowded[user_id]
            held = [waiter for waiter in self._waiters.get(user_id, ()) if waiter.held]
            if len(held) > 1:
                self._crowded[user_id] = None
                return held[0]
        return None

    def _supersede(self, waiters: list[Waiter]) -> None:
        oldest = None
        held = 0
        for waiter in waiters:
            if waiter.held:
                held += 1
                if oldest is None:
                    oldest = waiter
        if oldest is not None and held > HELD_PER_USER:
            oldest.wake(WakeReason.SUPERSEDED)

"""Requests to a daemon that does not answer."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from chatd.admin.errors import AdminError
from chatd.admin.remote import ANSWER_SECONDS, RemoteAdministration
from chatd.domain.administration import ShowUser
from tests.doubles import result_of


def test_a_daemon_that_hangs_is_not_waited_for_long() -> None:
    """A process that was stopped by SIGSTOP still accepts connections."""
    clock = Clock()
    remote = RemoteAdministration(clock)
    remote.makeConnection(StringTransport())  # type: ignore[no-untyped-call]
    performing = Deferred.fromCoroutine(remote.perform(ShowUser("ann")))
    clock.advance(ANSWER_SECONDS - 1)
    assert not performing.called
    clock.advance(1)
    with pytest.raises(AdminError, match="has not answered for 60 s; whether this was done is"):
        result_of(performing)
    # Too late.
    remote.lineReceived(b"{}")
    remote.connectionLost()
    assert not clock.getDelayedCalls()

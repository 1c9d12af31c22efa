"""From which network accounts are used."""

from __future__ import annotations

import pytest

from chatd.domain import caller_networks
from chatd.domain.caller_networks import CallerNetworks


def test_accounts_belong_to_the_network_that_uses_them_last() -> None:
    callers = CallerNetworks()
    callers.note(1, "192.0.2.1")
    callers.note(2, "192.0.2.1")
    callers.note(3, "2001:db8:1:2::3")
    callers.note(4, "2001:db8:1:ffff::3")
    assert callers.of(1) == callers.of(2) == "192.0.2.1"
    assert callers.of(3) == callers.of(4) == "2001:db8:1::/48"
    callers.note(2, "192.0.2.2")
    assert callers.of(2) == "192.0.2.2"


def test_an_account_that_is_not_known_is_on_its_own() -> None:
    callers = CallerNetworks()
    assert callers.of(1) != callers.of(2)


def test_few_accounts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_networks, "MAX_ACCOUNTS", 2)
    callers = CallerNetworks()
    for account in (1, 2, 1, 3):
        callers.note(account, "local")
    assert [callers.of(account) for account in (1, 2, 3)] == ["local", 2, "local"]

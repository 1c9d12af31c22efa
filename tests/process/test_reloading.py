"""What SIGHUP changes in a running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from chatd.config import OPTIONS, ConfigError, Settings, load
from chatd.domain.disk_space import CHECK_SECONDS
from chatd.process.reloading import Reloader, connections_per_address, http_limits, reconfigure
from chatd.rates import Rate
from chatd.store.sqlite.housekeeping import RETENTION_SECONDS
from tests.api.service import CHATS, OWN, USERS, Service, serving
from tests.doubles import logged

BEFORE = load({}, {})[0]


class Daemon:
    """Records what the reloader does."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.settings = BEFORE
        self.output = self
        self.level = ""
        self.wanted: Settings | ConfigError = BEFORE
        anything: Any = self
        self.reloader = Reloader(BEFORE, self.load, anything, anything, anything)

    def load(self) -> Settings:
        if isinstance(self.wanted, ConfigError):
            raise self.wanted
        return self.wanted

    def reopen(self) -> None:
        self.done.append("log")

    def reloading(self) -> None:
        self.done.append("reloading")

    def reload_certificates(self) -> None:
        self.done.append("certificates")

    def set_level(self, level: str) -> None:
        self.level = level

    def reconfigure(self, settings: Settings) -> None:
        self.done.append("settings")
        self.settings = settings

    def status(self) -> str:
        return "fine"

    def ready(self, status: str) -> None:
        self.done.append(f"ready: {status}")


def test_the_log_the_certificates_and_the_settings_are_reloaded() -> None:
    daemon = Daemon()
    daemon.wanted = attrs.evolve(BEFORE, max_polls=7, log_level="warn")
    lines = logged(daemon.reloader.reload)
    assert daemon.done == ["reloading", "log", "certificates", "settings", "ready: fine"]
    assert daemon.settings == daemon.wanted
    assert daemon.level == "warn"
    assert lines == ["the settings are reloaded; changed: max-polls, log-level"]
    assert logged(daemon.reloader.reload) == ["the settings are reloaded; changed: nothing"]


def test_what_needs_a_restart_is_said_as_long_as_it_differs() -> None:
    daemon = Daemon()
    daemon.wanted = attrs.evolve(BEFORE, db="sqlite:other.db", workers=2, registration=False)
    for changed in ("registration", "nothing"):
        assert logged(daemon.reloader.reload) == [
            f"the settings are reloaded; changed: {changed}",
            "these settings need a restart: db, workers",
        ]
        assert daemon.settings == attrs.evolve(BEFORE, registration=False)


def test_invalid_settings_change_nothing() -> None:
    daemon = Daemon()
    daemon.wanted = ConfigError("chatd.toml: max-polls: 'x' is not a whole number")
    [line] = logged(daemon.reloader.reload)
    assert line == f"the settings are not reloaded: {daemon.wanted}"
    assert daemon.done == ["reloading", "log", "certificates", "ready: fine"]


def test_a_daemon_that_logs_as_twistd_does_has_no_log_to_reopen() -> None:
    daemon: Any = Daemon()
    reloader = Reloader(BEFORE, daemon.load, daemon, None, daemon)
    reloader.reopen_log()
    reloader.reload()
    assert daemon.done == ["reloading", "certificates", "settings", "ready: fine"]


@pytest.fixture
def service(tmp_path: Path) -> Any:
    with serving(tmp_path, OWN) as made:
        yield made


def change(service: Service, **values: Any) -> Any:
    """Take other settings; returns the server, whose new connections have them."""
    settings = attrs.evolve(load({}, {})[0], **{"rate_limits": False, **values})
    assert all(option.reloadable for option in OPTIONS if option.field in values)
    server = service.server()
    reconfigure(service.system.components, server, settings)
    return server


def test_registration_can_be_closed_and_opened(service: Service) -> None:
    body = {"username": "ann", "email": "a@b", "password": "12345"}
    change(service, registration=False)
    service.post(USERS, body).problem(403, "registration_closed")
    change(service, min_password_length=6)
    service.post(USERS, body).problem(400, "invalid_body")
    change(service)
    assert service.post(USERS, body).status == 201


def test_rates_can_be_changed_and_switched_off(service: Service) -> None:
    ann = service.new_user("ann")
    one = Rate(1, 1 / 3600)
    change(service, rate_limits=True, rate_messages=one, rate_guesses=one, rate_reads=one)
    body = {"user_id": ann.id, "message": "hello"}
    assert ann.post(CHATS, body).status == 201
    ann.post(CHATS, body).problem(429, "rate_limited")
    # What has been taken stays taken.
    change(service, rate_limits=True, rate_messages=Rate(5, 1 / 3600))
    ann.post(CHATS, body).problem(429, "rate_limited")
    change(service, rate_limits=True, rate_message_bytes=Rate(1, 1 / 3600))
    assert service.new_user("bob").post(CHATS, body).status == 201
    service.new_user("cat").post(CHATS, body).problem(429, "rate_limited")
    change(service)
    assert ann.post(CHATS, body).status == 201


def test_messages_can_be_limited_otherwise(service: Service) -> None:
    ann = service.new_user("ann")
    body = {"user_id": ann.id, "message": "hello"}
    change(service, max_message_bytes=4, edit_seconds=1)
    ann.post(CHATS, body).problem(413, "message_too_large")
    server = change(service, max_message_bytes=1_000_000)
    assert ann.post(CHATS, body).status == 201
    assert server.limits.body_bytes > 6_000_000
    assert server.buildProtocol(None)._reader._limits is server.limits


def test_fewer_polls_can_be_held(service: Service) -> None:
    ann = service.new_user("ann")
    change(service, max_polls=0)
    assert ann.get(CHATS + "?since=now&wait=30").status == 200
    change(service, max_polls=1)
    ann.wait()


def test_inboxes_can_have_more_messages(service: Service) -> None:
    ann = service.new_user("ann")
    body = {"user_id": ann.id, "message": "hello"}
    change(service, max_inbox_messages=1)
    assert [ann.post(CHATS, body).status for _ in range(2)] == [201, 507]
    change(service, max_inbox_messages=2)
    assert [ann.post(CHATS, body).status for _ in range(2)] == [201, 507]
    change(service, max_inbox_bytes=15)
    assert [ann.post(CHATS, body).status for _ in range(2)] == [201, 507]


def test_more_or_less_of_the_disk_can_stay_free(tmp_path: Path) -> None:
    with serving(tmp_path, OWN, free_bytes=lambda: 32 << 20) as service:
        ann = service.new_user("ann")
        body = {"user_id": ann.id, "message": "hello"}
        for least, status in ((64 << 20, 507), (0, 201)):
            change(service, min_free_disk=least)
            service.advance(CHECK_SECONDS)
            assert ann.post(CHATS, body).status == status


def test_messages_can_be_removed_sooner(service: Service) -> None:
    ann = service.new_user("ann")
    ann.send(ann)
    service.clock.advance(86_400)
    service.clock.advance(RETENTION_SECONDS)
    assert ann.page()["meta"]["count"] == 1
    change(service, retention_days=1)
    service.clock.advance(RETENTION_SECONDS)
    assert ann.page()["meta"]["count"] == 0


def test_other_names_can_be_answered_to(service: Service) -> None:
    hosts = change(service, allowed_hosts=("chat.example",)).limits.hosts
    assert hosts.allow(b"chat.example")
    assert not hosts.allow(b"evil.example")
    assert change(service).limits.hosts.allow(b"evil.example")


def test_addresses_can_have_more_or_fewer_connections(service: Service) -> None:
    server = change(service, rate_limits=True, max_connections_per_address=3)
    assert server.state.admission.max_per_address == 3
    assert change(service).state.admission.max_per_address is None


def test_addresses_have_no_limit_where_that_is_off_or_a_proxy_is_in_between() -> None:
    assert connections_per_address(BEFORE) == 5000
    for values in (
        {"rate_limits": False},
        {"max_connections_per_address": 0},
        {"listen": ("haproxy:tcp:8080",)},
    ):
        assert connections_per_address(attrs.evolve(BEFORE, **values)) is None


def test_bodies_fit_whose_text_is_all_escaped() -> None:
    assert http_limits(BEFORE).body_bytes == 128 * 1024
    assert http_limits(attrs.evolve(BEFORE, max_message_bytes=100_000)).body_bytes > 600_000

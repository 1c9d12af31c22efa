"""The command line of `twistd chatd`."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.application.service import Application, IServiceMaker
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.plugin import getPlugins
from twisted.python import usage

from chatd import tap
from chatd.config import OPTIONS, Settings, load
from chatd.process.service import ChatService


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CHATD_"):
            monkeypatch.delenv(name)


def parsed(*arguments: str) -> Settings:
    options = tap.Options()
    options.parseOptions(list(arguments))
    return options.settings


def refused(*arguments: str) -> str:
    """The error message for an invalid command line, which is one line."""
    with pytest.raises(SystemExit) as ended:
        tap.Options().parseOptions(list(arguments))
    assert isinstance(ended.value.code, str), "a str is printed, and the status is 1"
    [line] = ended.value.code.splitlines()
    return line


def test_the_defaults() -> None:
    assert parsed() == load({}, {})[0]


def test_listen_is_repeatable() -> None:
    assert parsed("--listen", "tcp:1", "--listen=tcp:2").listen == ("tcp:1", "tcp:2")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_every_option_is_accepted_on_the_command_line(option: Any) -> None:
    value = {"listen": "tcp:1", "registration": "closed", "rate-limits": "off"}.get(option.name)
    if value is None:
        value = {
            "access-log": "on",
            "first-contact": "known",
            "trusted-proxies": "::/0",
            "log-format": "json",
            "log-level": "debug",
            "cors-origins": "*",
        }.get(option.name)
    if option.name.startswith("rate-"):
        value = value or "7/s burst 7"
    if value is None:
        value = {"directory": "on", "show-email": "owner"}.get(option.name, "7")
    default = getattr(load({}, {})[0], option.field)
    assert getattr(parsed(f"--{option.name}", value), option.field) != default
    assert f"--{option.name}" in str(tap.Options())


def test_the_help_shows_the_defaults() -> None:
    text = " ".join(tap.Options().getUsage().split())
    assert "[default: tcp:8080:interface=127.0.0.1]" in text
    assert "[default: 16384]" in text
    assert "--config=" in text


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--db"], "--db"),
        (["extra"], ""),
        (["--max-polls", "many"], "--max-polls: 'many'"),
        (["--max-polls="], "--max-polls: ''"),
        (["--listen", ""], "--listen"),
        (["--config", "/nonexistent/chatd.toml"], "/nonexistent/chatd.toml: No such file"),
        (["--registration", "maybe"], "--registration: 'maybe'"),
    ],
)
def test_an_invalid_command_line_is_reported_in_one_line(
    arguments: list[str], culprit: str
) -> None:
    line = refused(*arguments)
    assert line.startswith("chatd: ")
    assert culprit.removeprefix("--") in line


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATD_MAX_POLLS", "9")
    assert parsed().max_polls == 9
    assert parsed("--max-polls", "8").max_polls == 8


@pytest.fixture
def _process_state() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)
    }
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def made(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The service that `make` returns, and the log texts meanwhile."""
    from twisted.internet import reactor

    scheduled: list[Any] = []
    monkeypatch.setattr(reactor, "callWhenRunning", scheduled.append)
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        texts.append(formatEvent(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        service = make()
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    return service, texts


@pytest.mark.usefixtures("_process_state")
def test_twistd_and_the_tac_make_the_same_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATD_LISTEN", "tcp:1")
    monkeypatch.setenv("CHATD_NONSENSE", "x")
    options = tap.Options()
    options.parseOptions([])
    for make in (lambda: tap.makeService(options), tap.service_from_environment):
        clocks: list[object] = []
        monkeypatch.setattr(tap, "use_monotonic_clock", clocks.append)
        service, texts = made(monkeypatch, make)
        assert isinstance(service, ChatService)
        assert clocks == [service._reactor]
        assert service._gc_tuner is not None
        assert [listener.description for listener in service.public] == ["tcp:1"]
        assert [text for text in texts if "CHATD_NONSENSE" in text]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard


@pytest.mark.usefixtures("_process_state")
def test_a_limit_that_lets_few_clients_connect_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    options = tap.Options()
    options.parseOptions([])
    monkeypatch.setattr(tap, "use_monotonic_clock", lambda _: None)
    for hard, most in ((resource.RLIM_INFINITY, None), (4096, None), (200, 88), (64, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (hard, hard))
        _, texts = made(monkeypatch, lambda: tap.makeService(options))
        said = [text for text in texts if "connections can be open" in text]
        assert [text.split()[1] for text in said] == ([] if most is None else [str(most)])


@pytest.mark.usefixtures("_process_state")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--workers=2"], "workers: more than 1 needs PostgreSQL"),
        (["--workers=2", "--admin=unix:x", "--db=postgresql:///d"], "admin: workers need a port"),
        (["--listen-db=postgresql:///d"], "listen-db: only PostgreSQL listens"),
        (["--db=postgresql://u:hidden@h/d?no=1"], "db: neither a PostgreSQL URL"),
    ],
)
def test_a_service_that_cannot_be_made_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    options = tap.Options()
    options.parseOptions(arguments)
    with pytest.raises(SystemExit, match=f"^chatd: {line}.*$") as ended:
        made(monkeypatch, lambda: tap.makeService(options))
    assert "hidden" not in str(ended.value)


def test_an_invalid_environment_of_the_tac_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHATD_MAX_POLLS", "x")
    with pytest.raises(SystemExit, match=r"^chatd: CHATD_MAX_POLLS: .*$"):
        tap.service_from_environment()


def test_twistd_finds_the_plugin() -> None:
    # Other plugins may be installed.
    found: list[Any] = [each for each in getPlugins(IServiceMaker) if each.tapname == "chatd"]
    assert [maker.module for maker in found] == ["chatd.tap"]
    assert issubclass(found[0].options, usage.Options)
    assert found[0].makeService is tap.makeService


@pytest.mark.usefixtures("_process_state")
def test_it_logs_by_its_own_settings_where_twistd_is_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: Any = tap.Options()
    options.parent = {"logfile": str(tmp_path / "log"), "nodaemon": True}
    options.parseOptions(["--log-format=json", "--log-level=warn"])
    service, _ = made(monkeypatch, lambda: tap.makeService(options))
    application: Any = Application("chatd")
    service.setServiceParent(application)
    observer = application.getComponent(ILogObserver)
    event = {"log_namespace": "chatd.x", "log_time": 0.0, "log_format": "hai"}
    observer({**event, "log_level": LogLevel.info})
    observer({**event, "log_level": LogLevel.warn})
    observer.output.close()
    [line] = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["message"] == "hai"


@pytest.mark.usefixtures("_process_state")
@pytest.mark.parametrize("given", [{"logger": "x"}, {"syslog": True}])
def test_twistd_logs_itself_if_told_to(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    options: Any = tap.Options()
    options.parent = given
    options.parseOptions([])
    service, _ = made(monkeypatch, lambda: tap.makeService(options))
    assert isinstance(service, ChatService)


def test_check_says_what_would_be_done_and_exits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHATD_NONSENSE", "x")
    with pytest.raises(SystemExit) as ended:
        tap.Options().parseOptions(["--check", f"--db=sqlite:{tmp_path}/new.db"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "warning: the environment variable CHATD_NONSENSE is unknown to chatd"
    assert lines[-1].startswith(f"create the database {tmp_path}/new.db with schema version ")
    assert not list(tmp_path.iterdir())
    assert refused("--check", "--db=sqlite:/nonexistent/a.db").endswith("does not exist")
    assert "'nonsense:1' is not an endpoint" in refused("--check", "--listen=nonsense:1")

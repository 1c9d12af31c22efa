"""Sources of settings, their valid values, and the messages for invalid ones."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from chatd.config import OPTIONS, PREFIX, ConfigError, Settings, changes, load
from chatd.rates import Rate

DEFAULTS = Settings(
    listen=("tcp:8080:interface=127.0.0.1",),
    admin=None,
    db="sqlite:chatd.db",
    listen_db=None,
    bus=None,
    registration=True,
    rate_limits=True,
    rate_registrations=Rate(50, 0.2),
    rate_log_ins=Rate(50, 1.0),
    rate_wrong_passwords=Rate(20, 0.1),
    rate_guesses=Rate(500, 1.0),
    rate_reads=Rate(10_000, 1000.0),
    rate_messages=Rate(200, 50.0),
    rate_message_bytes=Rate(64 << 20, 1 << 20),
    max_message_bytes=16384,
    min_password_length=5,
    edit_seconds=0,
    first_contact=True,
    max_inbox_messages=1_000_000,
    max_inbox_bytes=1 << 30,
    min_free_disk=16 << 20,
    max_polls=10000,
    max_connections_per_address=5000,
    drain_seconds=10,
    lame_duck_seconds=0,
    workers=1,
    trusted_proxies=(),
    allowed_hosts=(),
    cors_origins=(),
    access_log=False,
    log_format="text",
    log_level="info",
    directory=False,
    show_email=True,
    retention_days=0,
)

# For each option: a value as text, the same value in TOML, and the resulting setting.
EXAMPLES: dict[str, tuple[str, str, Any]] = {
    "listen": ("tcp:1 unix:/a", '["tcp:1", "unix:/a"]', ("tcp:1", "unix:/a")),
    "admin": ("tcp:9000", '"tcp:9000"', "tcp:9000"),
    "db": ("sqlite:/x.db", '"sqlite:/x.db"', "sqlite:/x.db"),
    "listen-db": ("postgresql://h/d", '"postgresql://h/d"', "postgresql://h/d"),
    "bus": ("nats://a:1,b:2", '"nats://a:1,b:2"', "nats://a:1,b:2"),
    "registration": ("closed", '"closed"', False),
    "rate-limits": ("off", '"off"', False),
    "rate-registrations": ("1/h burst 1", '"1/h burst 1"', Rate(1, 1 / 3600)),
    "rate-log-ins": ("7/min burst 9", '"7/min  burst  9"', Rate(9, 7 / 60)),
    "rate-wrong-passwords": ("6/h burst 3", '"6/h burst 3"', Rate(3, 6 / 3600)),
    "rate-guesses": ("30/min burst 90", '"30/min burst 90"', Rate(90, 0.5)),
    "rate-reads": ("5/s burst 20", '"5/s burst 20"', Rate(20, 5.0)),
    "rate-messages": ("2/s burst 4", '"2/s burst 4"', Rate(4, 2.0)),
    "rate-message-bytes": ("9/s burst 99", '"9/s burst 99"', Rate(99, 9.0)),
    "max-message-bytes": ("100", "100", 100),
    "min-password-length": ("8", "8", 8),
    "edit-seconds": ("900", "900", 900),
    "first-contact": ("known", '"known"', False),
    "max-inbox-messages": ("500", "500", 500),
    "max-inbox-bytes": ("5000000000", "5000000000", 5_000_000_000),
    "min-free-disk": ("1000000000000", "1000000000000", 10**12),
    "max-polls": ("0", "0", 0),
    "max-connections-per-address": ("0", "0", 0),
    "drain-seconds": ("2.5", "2.5", 2.5),
    "lame-duck-seconds": ("5", "5", 5),
    "workers": ("4", "4", 4),
    "trusted-proxies": (
        "10.0.0.0/8,::1",
        '["10.0.0.0/8", "::1"]',
        (ip_network("10.0.0.0/8"), ip_network("::1")),
    ),
    "allowed-hosts": (
        "Chat.example,.b.example",
        '["chat.example", ".b.example"]',
        ("chat.example", ".b.example"),
    ),
    "cors-origins": (
        "https://app.example,http://localhost:5173",
        '["https://app.example", "http://localhost:5173"]',
        ("https://app.example", "http://localhost:5173"),
    ),
    "access-log": ("on", '"on"', True),
    "log-format": ("json", '"json"', "json"),
    "log-level": ("warn", '"warn"', "warn"),
    "directory": ("on", '"on"', True),
    "show-email": ("owner", '"owner"', False),
    "retention-days": ("90", "90", 90),
}
OPTION = {option.name: option for option in OPTIONS}
LISTS = {"trusted-proxies", "allowed-hosts", "cors-origins"}
"""Options whose value may be an empty list."""


def toml(folder: Path, text: str | bytes) -> str:
    """Write a file with this text; returns its path."""
    path = folder / "chatd.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def error_of(command_line: dict[str, Any], environment: dict[str, str] | None = None) -> str:
    """The line of the `ConfigError` for these settings."""
    with pytest.raises(ConfigError) as error:
        load(command_line, environment or {})
    [line] = str(error.value).splitlines()
    assert line
    return line


def test_the_defaults_are_those_of_the_contract() -> None:
    assert load({}, {}) == (DEFAULTS, [])


def test_every_option_has_an_example() -> None:
    assert list(EXAMPLES) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_option_may_come_from_every_source(tmp_path: Path, name: str) -> None:
    text, in_file, value = EXAMPLES[name]
    option = OPTION[name]
    assert option.variable == PREFIX + name.upper().replace("-", "_")
    given = text.split() if name == "listen" else text
    path = toml(tmp_path, f"{name} = {in_file}")
    for settings, warnings in [
        load({name: given}, {}),
        load({}, {option.variable: text}),
        load({"config": path}, {}),
        load({}, {"CHATD_CONFIG": path}),
    ]:
        assert getattr(settings, option.field) == value
        assert warnings == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_line_overrides_the_environment_which_overrides_the_file(
    tmp_path: Path, name: str
) -> None:
    text, _, value = EXAMPLES[name]
    option = OPTION[name]
    # The overridden values are invalid, but not even parsed.
    bad_file = toml(tmp_path, f"{name} = []" if name not in LISTS else f"{name} = 1")
    given = text.split() if name == "listen" else text
    settings, _ = load({name: given, "config": bad_file}, {option.variable: "?"})
    assert getattr(settings, option.field) == value
    settings, _ = load({"config": bad_file}, {option.variable: text})
    assert getattr(settings, option.field) == value


def test_the_path_of_the_file_on_the_command_line_overrides_the_variable(tmp_path: Path) -> None:
    path = toml(tmp_path, "max-polls = 7")
    settings, _ = load({"config": path}, {"CHATD_CONFIG": str(tmp_path / "missing")})
    assert settings.max_polls == 7


def test_listen_may_be_one_endpoint_or_several(tmp_path: Path) -> None:
    assert load({"config": toml(tmp_path, 'listen = "tcp:1"')}, {})[0].listen == ("tcp:1",)
    assert load({"listen": ["tcp:1", "tcp:2"]}, {})[0].listen == ("tcp:1", "tcp:2")
    several, _ = load({}, {"CHATD_LISTEN": " tcp:1  unix:/run/chatd.sock\n"})
    assert several.listen == ("tcp:1", "unix:/run/chatd.sock")


WRONG: dict[str, list[Any]] = {
    "listen": ["", " ", [], [""], ["tcp:1", 5], 8080, True, {}],
    "admin": ["", " ", 9000, [], True],
    "db": ["", 1, ["sqlite:x"], {}, False],
    "registration": ["", "Open", "yes", True, 1, [], "open "],
    "rate-limits": ["", "true", False, 0, []],
    "rate-registrations": ["", "50", 50, "0/s burst 1", "1/s burst 0", "1/s", "1/d burst 1", True],
    "rate-log-ins": ["1 / s burst 1", "1/s burst 1 burst 1", "-1/s burst 1", "1.5/s burst 2", []],
    "rate-wrong-passwords": ["off", "1/sburst 1", "\u0663/s burst 3", "9999999999/s burst 1"],
    "rate-guesses": ["1/s, burst 5", "burst 5"],
    "rate-reads": ["1000/s:10000", 1.5],
    "rate-messages": ["fast", ["1/s burst 1"]],
    "rate-message-bytes": ["1MiB/s burst 64MiB", 1 << 20],
    "max-message-bytes": [
        *("0", 0, -1, "1_0", "0x10", " 1", "+1", 1.0, "", True, "\u0663", 2**40, "9" * 5000),
        *([], "1e3", "1.5"),
    ],
    "min-password-length": [0, 1025, "five", None, {}],
    "edit-seconds": [-1, "-1", "1.5", "always", 2**32],
    "first-contact": ["", "Known", "closed", True],
    "max-connections-per-address": [-1, "-1", "many", 1.5],
    "max-inbox-messages": [0, -1, "many"],
    "max-inbox-bytes": [0, -1, "1G"],
    "min-free-disk": [-1, "1G", 1.5],
    "max-polls": [-1, "-1", 2**32, "many"],
    "drain-seconds": [-1, "-0.1", "nan", "inf", 3601, "", True, [], {}, 10**400, "soon", 1e300],
    "lame-duck-seconds": [-1, "soon", 3601],
    "workers": [0, 1025, "two", 1.5],
    "trusted-proxies": [
        *("x", "10.0.0.1/8", "10.0.0.0/33", 1, True, [1], [True], [["10.0.0.0", 8]], {}),
        ["::/129"],
    ],
    "allowed-hosts": ["a:80", "http://a", "*.a", "[::1]", "a b/", "..a", 1, True, [1], {"a": 1}],
    "cors-origins": [
        *("app.example", "https://", "https://app.example/", "https://app.example/chat", "null"),
        *("https://*.example", "https://u@app.example", "https://app.example:65536", "//a", "**"),
        *("https://a.example:", "https://b\u00fccher.example", "* https://app.example", 1, True),
        *([1], [["https://a.example"]], {}, "https://a b", "http:/a", "https://a.example?b", " /"),
    ],
    "access-log": ["yes", True, 1],
    "log-format": ["", "JSON", 1, True, []],
    "log-level": ["", "warning", "INFO", 3, ["info"]],
    "directory": ["", "open", True],
    "show-email": ["", "none", "Owner", False],
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_value_is_reported_with_its_option(name: str) -> None:
    for value in WRONG[name]:
        assert error_of({name: value}).startswith(f"--{name}: "), value


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (" ", ()),
        ("*", ("*",)),
        (
            "HTTPS://App.Example:443 http://a:80,http://a:443",
            ("https://app.example", "http://a", "http://a:443"),
        ),
        ("https://a:8443, capacitor://localhost", ("https://a:8443", "capacitor://localhost")),
        ("http://[::1]:5173 http://127.0.0.1", ("http://[::1]:5173", "http://127.0.0.1")),
    ],
)
def test_origins_are_kept_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    settings, _ = load({"cors-origins": text}, {})
    assert settings.cors_origins == origins


def test_an_invalid_value_is_reported_with_its_source(tmp_path: Path) -> None:
    path = toml(tmp_path, "max-polls = -1")
    assert error_of({"max-polls": "x"}).startswith("--max-polls: 'x' is not a whole number")
    assert error_of({}, {"CHATD_MAX_POLLS": "x"}).startswith("CHATD_MAX_POLLS: 'x' ")
    assert error_of({"config": path}).startswith(f"{path}: max-polls: -1 ")


@pytest.mark.parametrize("name", ["db", "listen-db"])
@pytest.mark.parametrize(
    "value", ['["postgresql://u:hidden@h/d"]', '{url = "postgresql://u:hidden@h/d"}']
)
def test_error_messages_do_not_contain_passwords(tmp_path: Path, name: str, value: str) -> None:
    line = error_of({"config": toml(tmp_path, f"{name} = {value}")})
    assert f"{name}: " in line
    assert "hidden" not in line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 1", "'port'"),
        ("max_polls = 1", "'max_polls', did you mean 'max-polls'?"),
        ("registratoin = 'closed'", "'registratoin', did you mean 'registration'?"),
        ("[chatd]\nmax-polls = 1", "'chatd'"),
        ("config = 'x'", "'config'"),
        ("Listen = 'x'", "'Listen', did you mean 'listen'?"),
        ('"a\\nb" = 1', r"'a\nb'"),
        ('"" = 1', "''"),
    ],
)
def test_an_unknown_key_is_reported(tmp_path: Path, text: str, named: str) -> None:
    path = toml(tmp_path, text)
    assert error_of({"config": path}) == f"{path}: unknown key {named}"


@pytest.mark.parametrize(
    "text",
    [
        *(b"=", b"max-polls", b"max-polls = ", b"\xff", b"max-polls = 1\nmax-polls = 2"),
        *(b"a = " + b"9" * 5000, b"a = " + b"[" * 20_000, b"\x00", b'listen = "\n"', b"{}"),
        b'db = "postgresql://u:hidden@h/d',
    ],
    ids=range(11),
)
def test_invalid_toml_is_reported(tmp_path: Path, text: bytes) -> None:
    path = toml(tmp_path, text)
    line = error_of({"config": path})
    assert line.startswith(f"{path}: not TOML: ")
    assert "hidden" not in line


def test_a_password_in_the_wrong_setting_is_not_shown() -> None:
    line = error_of({"registration": "postgresql://chatd:hidden@db/chatd"})
    assert line.startswith("--registration: 'postgresql://chatd:...@db/chatd' is neither")


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    assert error_of({"config": missing}) == f"{missing}: No such file or directory"
    assert error_of({}, {"CHATD_CONFIG": missing}) == f"{missing}: No such file or directory"
    assert error_of({"config": str(tmp_path)}) == f"{tmp_path}: Is a directory"
    assert error_of({"config": ""}) == "config: No such file or directory"
    assert error_of({}, {"CHATD_CONFIG": ""}) == "config: No such file or directory"


def test_a_file_without_settings_changes_nothing(tmp_path: Path) -> None:
    assert load({"config": toml(tmp_path, "# nothing\n")}, {})[0] == DEFAULTS


@pytest.mark.parametrize("text", [b"", b" \r\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: bytes) -> None:
    """It is what a full disk leaves of a file, and its defaults would open another database."""
    path = toml(tmp_path, text)
    assert error_of({"config": path}) == f"{path}: the file is empty"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = toml(tmp_path, b"\xef\xbb\xbfmax-polls = 7")
    assert load({"config": path}, {})[0].max_polls == 7


def test_unknown_variables_cause_warnings() -> None:
    environment = {"CHATD_DBB": "postgresql://u:hidden@h/d", "CHATD_": "x", "chatd_db": "x"}
    settings, warnings = load({}, {**environment, "PATH": "/bin", "CHATDX": "y"})
    assert settings == DEFAULTS
    assert [text.split()[3] for text in warnings] == ["CHATD_", "CHATD_DBB"]
    assert "hidden" not in "".join(warnings)


def test_changes_are_told_apart_by_whether_a_running_daemon_can_take_them() -> None:
    after, _ = load({"registration": "closed", "db": "sqlite:other.db", "max-polls": "1"}, {})
    reloadable, others = changes(DEFAULTS, after)
    assert [option.name for option in reloadable] == ["registration", "max-polls"]
    assert [option.name for option in others] == ["db"]
    assert changes(after, after) == ([], [])

"""Addresses of PostgreSQL servers."""

from __future__ import annotations

import pytest
from psycopg2.extensions import parse_dsn

from chatd.postgres.address import CONNECT_SECONDS, parse


def test_the_location_does_not_contain_the_password() -> None:
    address = parse("postgresql://ann:s3cret@db.example:5433/chat?sslmode=require")
    assert address.location == "postgresql://ann@db.example:5433/chat"
    [attempt] = address.attempts
    parts = parse_dsn(attempt)
    assert parts["password"] == "s3cret"
    assert parts["sslmode"] == "require"
    assert parts["port"] == "5433"


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("postgresql://", "postgresql:///"),
        ("postgresql:///chat", "postgresql:///chat"),
        ("host=h dbname=d password=x", "postgresql://h/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://u:p@/d?host=/run/pg", "postgresql://u@/d?host=/run/pg"),
        ("postgresql://a,b:5433/d", "postgresql://a,b:5433/d"),
        ("host=a,b port=5433 dbname=d", "postgresql://a:5433,b:5433/d"),
        ("hostaddr=127.0.0.1 dbname=d", "postgresql://127.0.0.1/d"),
    ],
)
def test_locations_are_urls(text: str, location: str) -> None:
    assert parse(text).location == location


def test_application_name_and_keepalives_have_defaults() -> None:
    parts = parse_dsn(parse("host=h", "chatd bus").attempts[0])
    assert parts["application_name"] == "chatd bus"
    assert parts["client_encoding"] == "UTF8"
    assert int(parts["keepalives_idle"]) < 60
    assert "target_session_attrs" not in parts


def test_parameters_in_the_address_take_precedence() -> None:
    text = "host=h application_name=mine keepalives_idle=77 connect_timeout=2.5"
    address = parse(text)
    parts = parse_dsn(address.attempts[0])
    assert parts["application_name"] == "mine"
    assert parts["keepalives_idle"] == "77"
    assert address.connect_seconds == 2.5


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_there_is_always_a_timeout(seconds: str) -> None:
    assert parse(f"host=h connect_timeout={seconds}").connect_seconds == CONNECT_SECONDS


def test_there_is_one_attempt_per_host_and_the_primary_is_wanted() -> None:
    first, second = (
        parse_dsn(text) for text in parse("host=a,b hostaddr=::1,::2 port=1,2").attempts
    )
    assert (first["host"], first["hostaddr"], first["port"]) == ("a", "::1", "1")
    assert (second["host"], second["hostaddr"], second["port"]) == ("b", "::2", "2")
    assert first["target_session_attrs"] == second["target_session_attrs"] == "read-write"
    kept = parse("host=a,b target_session_attrs=any").attempts[1]
    assert parse_dsn(kept)["target_session_attrs"] == "any"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:s3cret%zz@h/d",
        "s3cret",
        "host=a,b port=1,2,3 password=s3cret",
        "host=a,b hostaddr=::1 password=s3cret",
        "host=a connect_timeout=s3cret",
        "nosuchkeyword=1 password=s3cret",
    ],
)
def test_invalid_addresses_are_not_quoted_in_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert "s3cret" not in str(caught.value)

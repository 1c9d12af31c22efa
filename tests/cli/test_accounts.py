"""Logging in to services of different versions."""

from __future__ import annotations

import json
import socket

import pytest

from chatd.cli.accounts import LABEL_CHARACTERS, log_in_with_label, too_old
from chatd.cli.errors import CommandError
from chatd.client import APIError
from tests.client.scripted import Canned, Harness, failure, problem, success

ISSUED = Canned(201, {"token": "t", "user_id": 1, "created_at": "2026-11-22T12:00:00Z"})
ANN = {"username": "ann", "password": "secret"}


@pytest.mark.parametrize("host", ["laptop", "x" * 100])
def test_the_token_is_labelled_with_the_name_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    harness = Harness()
    harness.service.script = [ISSUED]
    assert success(harness.start(log_in_with_label(harness.client, "ann", "secret"))) == "t"
    label = f"chatd on {host}"[:LABEL_CHARACTERS]
    assert json.loads(harness.service.bodies[0]) == {**ANN, "label": label}


def test_a_service_of_version_1_gets_no_label() -> None:
    harness = Harness()
    harness.service.script = [problem(400, "invalid_body"), ISSUED]
    assert success(harness.start(log_in_with_label(harness.client, "ann", "secret"))) == "t"
    assert json.loads(harness.service.bodies[1]) == ANN


def test_other_errors_of_a_log_in_are_passed_on() -> None:
    harness = Harness()
    harness.service.script = [problem(401, "unauthorized")]
    logging_in = harness.start(log_in_with_label(harness.client, "ann", "secret"))
    assert failure(logging_in, APIError).code == "unauthorized"
    assert len(harness.service.requests) == 1


def test_a_service_that_is_too_old_is_called_so() -> None:
    explained = too_old(APIError(405, "method_not_allowed", "this path takes POST"))
    assert isinstance(explained, CommandError)
    other = APIError(404, "token_not_found", "no")
    assert too_old(other) is other

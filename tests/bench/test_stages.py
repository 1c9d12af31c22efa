"""Profiles by stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.publish import ROOT
from bench.stages import STAGES, Column, shares, stage_of, table


@pytest.mark.parametrize(
    ("stack", "stage"),
    [
        ("run (twisted/internet/base.py:1)", "reactor, hand-over to the writer thread"),
        (
            "run (twisted/internet/base.py:1);doRead (twisted/internet/tcp.py:2)",
            "receive from the socket",
        ),
        (
            "doRead (twisted/internet/tcp.py:2);read_head (chatd/http/request_reader.py:3);"
            "fullmatch (re/__init__.py:4)",
            "read HTTP requests",
        ),
        (
            "respond (chatd/http/request.py:1);write (chatd/http/eager_write.py:2)",
            "send to the socket",
        ),
        ("wake (chatd/domain/poll.py:1)", "hold and wake"),
        ("flush (chatd/domain/batch.py:1)", "collect sends in batches"),
        ("main (elsewhere.py:1)", "other"),
        ("<module>", "other"),
    ],
)
def test_the_innermost_function_decides(stack: str, stage: str) -> None:
    assert stage_of(stack) == stage


def test_every_path_of_a_stage_exists() -> None:
    for paths in STAGES.values():
        for path in paths:
            if path.startswith("chatd/"):
                assert Path(ROOT, path).exists(), path


def test_the_table_divides_the_cpu_time_of_the_main_thread() -> None:
    by_stage = shares(
        [
            "wake (chatd/domain/poll.py:1) 3",
            "wait (twisted/internet/epollreactor.py:9) 1",
            "_bootstrap (threading.py:1);append (chatd/store/sqlite/chats.py:2) 7",
        ]
    )
    assert sum(by_stage.values()) == 1
    lines = table({"deliver": Column(80.0, 20.0, by_stage)}).splitlines()
    assert "| hold and wake | 60 |" in lines
    assert "| reactor, hand-over to the writer thread | 20 |" in lines
    assert lines[-2:] == ["| store and commit (writer thread) | 20 |", "| all | 100 |"]


def test_a_profile_without_samples_has_no_shares() -> None:
    assert shares([]) == {}

"""Where the polls of the scaling benchmark are, and how its figures are shown."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.scale import HEAD, Database, Figures, evenly, skewed
from tests.daemon import wait_until
from tests.postgres_server import Databases


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_polls_are_spread(processes: int) -> None:
    place = evenly(processes)
    assert Counter(map(place, range(800))) == dict.fromkeys(range(processes), 800 // processes)
    found = Counter(map(skewed(processes), range(800)))
    assert found[0] == (400 if processes > 1 else 800)
    assert len(found) == processes
    assert max(found.values()) == found[0]


def test_the_table_has_a_column_for_each_figure() -> None:
    row = Figures("nats", 8, "even", 1000, 500.0, 100.4, 50.0, 7.6, 4.0, 30.0, 0).row()
    assert row == "| nats | 8 | even | 500 | 100 | 50 | 8 | 158 | 4 % | 30 % | 0 |"
    assert {line.count("|") for line in (*HEAD.splitlines(), row)} == {12}


def test_the_database_is_that_of_the_address(postgres: Databases, postgres_database: str) -> None:
    # A server that was just started may have used less than a tick of the clock; a connection uses
    # some more.
    url = postgres.url(postgres_database)
    wait_until(lambda: Database(url).cpu_seconds() > 0, 10)

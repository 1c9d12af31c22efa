"""A role of daemons that does not own the tables, with the rights that `docs/scale.md` lists."""

from __future__ import annotations

from typing import Final

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from chatd.store.sharded.schema import SIGNATURE
from chatd.store.sharded.tables import ALLOCATION
from tests.postgres_server import connected, rows

OWNER: Final = "owner"
ROLE: Final = "chatd_daemon"

by_owner_and_role: Final = pytest.mark.parametrize("store_url", [OWNER, ROLE], indirect=True)
"""Runs tests with the fixture `open_store` once as each of them."""

_GRANTS: Final = f"""
GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {ROLE};
GRANT SELECT ON schema_version TO {ROLE};
GRANT SELECT, UPDATE ON history, {ALLOCATION} TO {ROLE}
"""


def url_of_role(url: str) -> str:
    """The address of a sharded database for the role, which is made if it is missing."""
    with connected(url) as db:
        if not rows(db, "SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE):
            rows(db, f"CREATE ROLE {ROLE} LOGIN")
        rows(db, _GRANTS)
    made: str = make_dsn(**{**parse_dsn(url), "user": ROLE})
    return made

"""`GET /api/v1/address`: as whom the service sees the caller."""

from __future__ import annotations

from tests.api.service import CLIENT, Serve

ADDRESS = "/api/v1/address"
FORWARDED = {"X-Forwarded-For": "203.0.113.7"}


def test_the_address_is_that_of_the_connection(serve: Serve) -> None:
    service = serve()
    for path in (ADDRESS, ADDRESS + "/"):
        response = service.get(path, headers=FORWARDED)
        assert (response.status, response.json) == (200, {"address": CLIENT.host})


def test_behind_a_trusted_proxy_it_is_that_of_the_client(serve: Serve) -> None:
    service = serve(trusted=["127.0.0.0/8"])
    assert service.get(ADDRESS, headers=FORWARDED).json == {"address": "203.0.113.7"}

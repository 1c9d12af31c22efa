"""The page is tested through the API service that serves it, with the fixtures of its tests."""

from tests.api.conftest import _no_waiting_for_the_disk, service, stock

__all__ = ["_no_waiting_for_the_disk", "service", "stock"]

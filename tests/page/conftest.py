"""The page is tested through the service that serves it: the fixtures of the API's tests."""

from tests.api.conftest import _no_waiting_for_the_disk, service, stock

__all__ = ["_no_waiting_for_the_disk", "service", "stock"]

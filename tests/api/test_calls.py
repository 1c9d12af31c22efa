"""How routes are registered."""

from __future__ import annotations

from pathlib import Path

import chatd.api.admin
import chatd.api.api
from chatd.api.admin import Admin
from chatd.api.api import API
from chatd.api.docs.operations import PAGE


def test_paths_have_no_final_slash_and_no_parameters() -> None:
    for app in (API.app, Admin.app):
        for rule in app.url_map.iter_rules():
            # The web page's files have names; they go Klein's slower way.
            if rule.endpoint not in PAGE:
                assert rule.rule == rule.rule.rstrip("/")
                assert not rule.arguments


def test_every_route_names_its_methods() -> None:
    for app in (API.app, Admin.app):
        for rule in app.url_map.iter_rules():
            assert rule.methods
            assert rule.methods - {"HEAD"} <= {"GET", "POST", "DELETE"}


def test_no_handler_overwrites_another() -> None:
    for app, module in ((API.app, chatd.api.api), (Admin.app, chatd.api.admin)):
        assert module.__file__ is not None
        registered = Path(module.__file__).read_text().count("route(app, ")
        assert len(list(app.url_map.iter_rules())) == len(app.endpoints) == registered

"""What the documentation, the alerts and the dashboard say of metrics, against the metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from chatd.compose import service as composed_service
from chatd.compose import storage
from chatd.compose.service import compose_service
from chatd.config import load
from chatd.metrics import Metrics
from chatd.process.service import ChatService
from tests.daemon import ROOT
from tests.doubles import InlineExecutor

DOCUMENT = ROOT / "docs" / "monitoring.md"
RULES = ROOT / "packaging" / "prometheus" / "chatd.rules.yml"
RULES_TESTS = sorted(Path(__file__).parent.glob("*_test.yml"))
DASHBOARD = ROOT / "packaging" / "grafana" / "chatd.json"

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|([^|]+)\|([^|]*)\|$", re.MULTILINE)
# `up` is a metric of Prometheus itself.
NAME = re.compile(r"\b(?:chatd|process)_[a-z_]+\b|\bup\b")


def filled(**options: str) -> Metrics:
    """The metrics of a daemon, with a value in each of them."""
    from twisted.internet import reactor

    service = compose_service(load(options, {})[0], reactor)
    assert isinstance(service, ChatService)
    metrics = service.components.metrics
    metrics.observe_request(b"GET", "page", 200, 0.1)
    metrics.observe_poll("message", 1)
    metrics.observe_delivery(0.1, 1)
    metrics.count_store_error("append")
    metrics.count_refusal("unsent_bytes")
    return metrics


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The metrics of daemons on both databases, as Prometheus gets them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (composed_service, storage):
            patch.setattr(module, "ThreadPool", lambda *_: InlineExecutor())
        path = tmp_path_factory.mktemp("db") / "chatd.db"
        metrics = (
            filled(db=f"sqlite:{path}"),
            filled(db="postgresql:///d"),
            filled(db="postgresql:///d", bus="nats://a"),
        )
        return [each.render().decode() for each in metrics]


@pytest.fixture(scope="module")
def families(rendered: list[str]) -> dict[str, Metric]:
    """The metrics by the names that they are exposed with."""
    found: dict[str, Metric] = {}
    for text in rendered:
        for family in text_string_to_metric_families(text):
            name = family.name + ("_total" if family.type == "counter" else "")
            # Some have samples with one database only.
            if name not in found or family.samples:
                found[name] = family
    return found


def labels(family: Metric) -> set[str]:
    return {name for sample in family.samples for name in sample.labels} - {"le"}


def test_the_table_describes_every_metric(families: dict[str, Metric]) -> None:
    rows = {name: rest for name, *rest in ROW.findall(DOCUMENT.read_text())}
    assert rows.keys() == families.keys()
    for name, (kind, given, meaning, _) in rows.items():
        family = families[name]
        assert family.type == kind, name
        assert set(re.findall(r"`(\w+)`", given)) == labels(family), name
        assert meaning.strip()


def promtool(*arguments: str, given: str = "") -> str:
    """The output of promtool, which must succeed."""
    program = shutil.which("promtool")
    assert program is not None, "on Debian: apt-get install prometheus"
    done = subprocess.run(
        [program, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_metrics(rendered: list[str]) -> None:
    for text in rendered:
        assert promtool("check", "metrics", given=text) == ""


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    tests = [shutil.copy(path, tmp_path) for path in RULES_TESTS]
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", *map(str, tests))


def test_every_alert_is_tested() -> None:
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    tested = "".join(path.read_text() for path in RULES_TESTS)
    assert alerts == set(re.findall(r"alertname: (\w+)", tested))


def expressions() -> Iterator[str]:
    """The queries of the alerts and of the dashboard."""
    text = RULES.read_text()
    yield from re.findall(r"expr: (?:>-)?(.*?)\n +(?:for|labels):", text, re.DOTALL)
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (
        each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"
    )


def test_queries_name_metrics_and_labels_that_exist(families: dict[str, Metric]) -> None:
    samples = {
        sample.name: set(sample.labels) for family in families.values() for sample in family.samples
    }
    samples["up"] = set()
    found = list(expressions())
    assert len(found) > 30
    for expression in found:
        names = set(NAME.findall(expression))
        assert names, expression
        assert names <= samples.keys(), expression
        known = {"instance", "job", "le", *(label for name in names for label in samples[name])}
        used = set(re.findall(r"([a-z]+)=~?\"", expression))
        for group in re.findall(r"by \(([^)]*)\)", expression):
            used |= set(re.findall(r"\w+", group))
        assert used <= known, expression


def test_the_dashboard_shows_every_metric(families: dict[str, Metric]) -> None:
    text = DASHBOARD.read_text()
    unseen = {name for name in families if name not in text}
    assert unseen == {"process_virtual_memory_bytes"}

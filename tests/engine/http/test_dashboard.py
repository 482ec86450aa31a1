"""The dashboard and the pages name what there is: every metric, every label, every test, every option."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from cyclopts import App
from prometheus_client.parser import text_string_to_metric_families

from qvl.engine.cli import app
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import Usage
from tests.tools import promtool

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "ray_serve"


@pytest.fixture(scope="module")
def exposed() -> str:
    metrics = Metrics(replicas=2)
    metrics.request("/v1/embeddings", 200, 0.1, "-")
    metrics.error("overloaded", 429, "/v1/embeddings")
    metrics.usage("embedder", 1, Usage(text_tokens=1, visual_tokens=4, images=1), "-")
    for found in (True, False):
        metrics.lookup("media")(found)
    with metrics.queued("embedder", 1), metrics.stage("parse"), metrics.in_flight():
        return metrics.render().decode()


def series(text: str) -> dict[str, set[str]]:
    """Labels by the name that a query uses."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return {name: labels for name, labels in found.items() if name.startswith("qvl_")}


def test_the_dashboard_asks_for_what_there_is(exposed: str) -> None:
    known = series(exposed)
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        names = re.findall(r"qvl_\w+", query)
        assert names and set(names) <= known.keys(), query
        asked = {
            label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")
        }
        assert asked <= set().union(*(known[name] for name in names)), query
        assert query.count("(") == query.count(")")


def test_prometheus_takes_the_metrics(exposed: str) -> None:
    """Its own linter: names, units, help texts."""
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=exposed, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_prometheus_takes_the_queries_and_the_alerts(tmp_path: Path, exposed: str) -> None:
    """Queries are checked as rules: its parser is the same."""
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [
        {"record": f"query:{place}", "expr": query.replace("$__rate_interval", "5m")}
        for place, query in enumerate(queries)
    ]
    file = tmp_path / "queries.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for path in (file, DOCS / "alerts.yaml"):
        command = [promtool(), "check", "rules", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    expressions = re.findall(r"expr: (.*)", (DOCS / "alerts.yaml").read_text())
    asked = set(re.findall(r"qvl_\w+", " ".join(expressions)))
    assert asked and asked <= series(exposed).keys()


def counted(name: str, each_minute: float, **labels: str) -> dict[str, str]:
    """A series of promtool's for an hour."""
    shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{shown}}}", "values": f"0+{each_minute}x60"}


def level(name: str, values: str, **labels: str) -> dict[str, str]:
    return {**counted(name, 0, **labels), "values": values}


def refusals(code: str) -> list[dict[str, str]]:
    """As many as there are answers."""
    series = [level("up", "1x60", job="qvl"), level("qvl_ready_replicas", "1x60", job="qvl")]
    for status in ("200", "429"):
        series.append(counted("qvl_requests_total", 60, job="qvl", route="/v1/embeddings", status=status))
    return [*series, counted("qvl_errors_total", 60, job="qvl", status="429", code=code)]


def full(share: float, then: float | None = None) -> list[dict[str, str]]:
    """Two replicas for an hour, `then` one of them for its last ten minutes."""
    held = level("qvl_tokens_in_progress", f"{share}x50 {then or share}x10", job="qvl", instance="a")
    return [
        level("up", "1x60", job="qvl"),
        level("qvl_ready_replicas", "1x60", job="qvl"),
        held,
        level("qvl_tokens_in_progress", f"{share}x60", job="qvl", instance="b"),
        *(level("qvl_tokens_in_progress_limit", "1x60", job="qvl", instance=each) for each in "ab"),
    ]


def two(ready: str, instance: str = "a", up: str = "1x60") -> list[dict[str, str]]:
    """A server of two replicas, and how many of them are ready."""
    asked = re.sub(r"(?<![x\d])\d+", "2", ready)
    found = {"up": up, "qvl_ready_replicas": ready, "qvl_replicas": asked}
    return [level(name, values, job="qvl", instance=instance) for name, values in found.items()]


EMBEDDERS, RERANKERS = {"job": "qvl-embedders"}, {"job": "qvl-rerankers"}
ALERTS = {
    "one of two pools is gone": (
        [
            *(level("up", "1x60", instance="a", **job) for job in (EMBEDDERS, RERANKERS)),
            *(level("up", "0x60", instance="b", **job) for job in (EMBEDDERS, RERANKERS)),
            level("qvl_ready_replicas", "1x60", instance="a", **EMBEDDERS),
            level("qvl_ready_replicas", "1x10 stale", instance="a", **RERANKERS),
        ],
        {"QvlNoReplicaReady"},
    ),
    "nothing is scraped": ([], {"QvlNoReplicaReady"}),
    "one of two replicas comes and goes": (two("2x20 1x9 2 1x9 2 1x19"), {"QvlReplicaMissing"}),
    "a replica that is started again, once": (two("2x50 1 2x9"), set()),
    "one of two was never there": (two("1x60"), {"QvlReplicaMissing"}),
    "all load for some minutes": (two("2x45 0x5 2x10"), set()),
    "one of three servers is down": (
        [*two("2x60"), *two("2x60", "b"), *two("2x30 stale", "c", up="1x30 0x30")],
        {"QvlInstanceDown"},
    ),
    "a server is started again": ([*two("2x60"), *two("2x50 stale 2x9", "b", up="1x50 0x2 1x8")], set()),
    "the server is nearly full": (full(0.9), {"QvlNearlyFull"}),
    "it has room": (full(0.5), set()),
    "one request alone is larger than the limit, for a while": (full(0.5, then=3.0), set()),
    "a client is over its own rate": (refusals("rate_limited"), set()),
    "the server is over its own": (refusals("overloaded"), {"QvlRefusing"}),
}


@pytest.mark.parametrize("story", ALERTS)
def test_alerts_say_what_is_so(tmp_path: Path, story: str) -> None:
    """After an hour; Prometheus' own evaluation."""
    given, wanted = ALERTS[story]
    names = re.findall(r"alert: (\w+)", (DOCS / "alerts.yaml").read_text())
    assert wanted <= {*names}
    fired = [
        {"eval_time": "60m", "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'}
        | {"exp_samples": [{"labels": "{}", "value": int(name in wanted)}]}
        for name in names
    ]
    tests = {"interval": "1m", "input_series": given, "promql_expr_test": fired}
    file = tmp_path / "tests.json"
    file.write_text(json.dumps({"rule_files": [str(DOCS / "alerts.yaml")], "tests": [tests]}))
    command = [promtool(), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap() -> None:
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and {x for x, _ in cells} <= set(range(24))
    assert len(panels) == len({panel["id"] for panel in panels}) > 10


def test_the_table_lists_every_metric(exposed: str) -> None:
    """With its kind and its labels."""
    page = (DOCS / "METRICS.md").read_text()
    rows = re.findall(r"^\| `(qvl_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    found = {
        (family.name + "_total" * (family.type == "counter"), family.type): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in text_string_to_metric_families(exposed)
        if family.name.startswith("qvl_") and not family.name.endswith("_created")
    }
    assert {(name, kind): {*labels.replace(",", " ").split()} for name, kind, labels in rows} == found


@pytest.mark.parametrize("page", ["THREATS.md", "FAULTS.md"])
def test_every_rule_has_its_test(page: str) -> None:
    named = re.findall(r"`(tests/[^`]+)`", (DOCS / page).read_text())
    assert len(named) > 10
    for each in named:
        path, _, name = each.partition("::")
        assert (ROOT / path).exists(), each
        assert not name or re.search(rf"(def|class) {name}\b", (ROOT / path).read_text()), each


def options(command: App) -> set[str]:
    """Of a command and of those below it."""
    own = command.assemble_argument_collection() if command.default_command else ()
    below = (options(command[name]) for name in command if not name.startswith("-"))
    return {name for argument in own for name in argument.names}.union(*below)


PAGES = [ROOT / "README.md", *sorted((ROOT / "engine").glob("*.md")), *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_is_there(page: Path) -> None:
    others = re.compile("python -m|^(ray|docker) ")
    lines = [line for line in page.read_text().splitlines() if not others.search(line)]
    named = set(re.findall(r"--[a-z][a-z-]+", "\n".join(lines)))
    assert named <= options(app) | {"--help"}

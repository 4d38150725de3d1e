"""What the dashboard and the alerts ask for is what a running suite counts."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from suite.composition import SERVICES
from tests.people import People
from tests.running import running

DEPLOY = Path(__file__).parents[2] / "deploy"
# What Prometheus itself says of whom it asks, and how it calls them.
_OF_TARGETS = {"up": {"job": {"insta"}, "part": set(SERVICES), "instance": set()}}
# Of the dashboard, as Grafana would fill them in.
_VARIABLES = {"$__rate_interval": "5m", "$part": ".*"}

Values = Mapping[str, Mapping[str, set[str]]]


def _of_dashboard() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((DEPLOY / "grafana" / "insta.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for variable, value in _VARIABLES.items():
                query = query.replace(variable, value)
            yield f"{panel['title']} {target['refId']}", query


def _of_alerts() -> Iterator[tuple[str, str]]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


QUERIES = dict([*_of_dashboard(), *_of_alerts()])


@pytest.fixture(scope="module")
async def counted(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """The values of each label of each metric, of all parts of a suite that has done a bit of everything."""
    with running("apart", tmp_path_factory.mktemp("counted") / "var", superuser=False) as suite:
        people = People(suite.address)
        ana, ben = await people.join(), await people.join()
        post = await ana.post("Counted")
        await ben.like(post)
        await people.channel.close()
        found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for url in re.findall(r"http://\S+/metrics", suite.said):
            for family in text_string_to_metric_families(await asyncio.to_thread(_page, url)):
                for sample in family.samples:
                    for label, value in sample.labels.items():
                        found[sample.name][label].add(value)
    for labels in found.values():
        for label, values in _OF_TARGETS["up"].items():
            labels[label] |= values
    # Codes of which there was none yet.
    found["insta_calls_total"]["code"] |= {code.name for code in grpc.StatusCode}
    return {**found, **_OF_TARGETS}


def test_everything_that_is_counted_is_shown(counted: Values) -> None:
    shown = {selector.name for query in QUERIES.values() for selector in _selectors(promql_parser.parse(query))}

    # When a series began is for Prometheus; the sum of seconds is part of its histogram.
    apart = {name for name in counted if name.endswith("_created") or name.startswith("insta_call_seconds_")}
    assert counted.keys() - apart == shown - {"insta_call_seconds_bucket"}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_a_query_asks_for_what_is_counted(query: str, counted: Values) -> None:
    expression = promql_parser.parse(query)
    selectors = _selectors(expression)

    assert selectors
    for selector in selectors:
        assert selector.name in counted
        labels = counted[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
            for value in _alternatives(matcher):
                assert any(re.fullmatch(value, there) for there in labels[matcher.name]), f"nothing is {value}"
    for grouping in _groupings(expression):
        for selector in _selectors(grouping.expr):
            assert set(grouping.modifier.labels) <= counted[selector.name].keys()


def test_every_panel_reads_from_the_chosen_prometheus() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "insta.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]

    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["description"]
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "part"]


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as page:
        text: str = page.read().decode()
    return text


def _alternatives(matcher: Any) -> list[str]:
    """Regular expressions for each of the values that a matcher names."""
    if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
        return [re.escape(matcher.value)]
    group = re.fullmatch(r"([^(]*)\(([^)]*)\)", matcher.value)
    if group is None:
        value: str = matcher.value
        return value.split("|")
    return [group[1] + each for each in group[2].split("|")]


def _selectors(expression: Any) -> list[Any]:
    return _nodes(expression, promql_parser.VectorSelector)


def _groupings(expression: Any) -> list[Any]:
    return [each for each in _nodes(expression, promql_parser.AggregateExpr) if each.modifier is not None]


def _nodes(expression: Any, kind: type) -> list[Any]:
    nodes: list[Any] = []
    promql_parser.walk(expression, lambda node: nodes.append(node))
    return [node for node in nodes if isinstance(node, kind)]

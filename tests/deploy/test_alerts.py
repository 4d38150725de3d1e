"""The configuration and the rules of Prometheus, by its own judgement."""

from __future__ import annotations

from typing import Any

import yaml

from tests.deploy.promtool import PROMETHEUS, promtool


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert f"{len(_alerts())} rules found" in promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_each_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    tried = [each for test in tests for each in test["alert_rule_test"]]

    names = {alert["alert"] for alert in _alerts()}
    assert {each["alertname"] for each in tried if each.get("exp_alerts")} == names
    assert {each["alertname"] for each in tried if not each.get("exp_alerts")} == names


def test_each_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    for alert in _alerts():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "description"} == alert["annotations"].keys()


def _alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]

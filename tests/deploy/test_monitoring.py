"""The dashboard and the alert rules use metrics that exist, with labels that these metrics have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OF_PROMETHEUS = {"instance", "job", "le"}


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return loaded


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    variables = [v["query"]["query"] for v in dashboard()["templating"]["list"] if v["type"] == "query"]
    return panels + variables + [rule["expr"] for rule in rules()]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_of_the_dashboard_and_alerts_exists_with_its_labels(
    expression: str, figures: dict[str, set[str]]
) -> None:
    names = set(re.findall(r"\bconvoy_\w+", expression))
    assert names or expression.startswith("up{")  # Prometheus's own
    assert names <= set(figures)
    for name, matchers in re.findall(r"\b(convoy_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*[=!]~?\"", matchers)) <= figures[name] | OF_PROMETHEUS
    known = OF_PROMETHEUS.union(*(figures[name] for name in names))
    for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert {label.strip() for label in labels.split(",")} <= known


def test_every_figure_is_on_the_dashboard(figures: dict[str, set[str]]) -> None:
    shown = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in figures}
    assert {family for family in families if family not in shown} == set()


def test_there_is_an_alert_for_each_way_to_go_wrong_that_says_what_to_do() -> None:
    assert {rule["alert"] for rule in rules()} == {
        "ConvoyNoModel",
        "ConvoyMissing",
        "ConvoyDown",
        "ConvoyErrors",
        "ConvoyOverloaded",
        "ConvoyLate",
        "ConvoyVersionRefused",
        "ConvoyFallback",
        "ConvoyWorkersDie",
        "ConvoySlow",
    }
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_panels_have_places_and_names_of_their_own() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)

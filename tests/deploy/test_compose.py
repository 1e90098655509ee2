"""compose.yaml mounts files that exist, where the programs look for them."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


SERVICES: dict[str, dict[str, Any]] = read(ROOT / "compose.yaml")["services"]


def mounts(service: str) -> dict[str, Path]:
    """Returns the path in this repository of each path in the container."""
    volumes = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    assert all(access == "ro" for _, _, access in volumes)
    return {inside: ROOT / outside for outside, inside, _ in volumes}


def test_everything_that_is_mounted_exists() -> None:
    for service in SERVICES:
        for path in mounts(service).values():
            assert path.exists(), path


def test_the_service_gets_its_bundles_and_the_time_to_drain() -> None:
    (workdir,) = set(re.findall(r"^WORKDIR (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(mounts("convoy")) == {f"{workdir}/{Settings.model_fields['artifacts'].default}"}
    settings = Settings()
    needed = settings.drain_delay + settings.drain_seconds + 20
    assert SERVICES["convoy"]["stop_grace_period"] == f"{needed:.0f}s"


def test_prometheus_reads_the_service_and_the_alert_rules() -> None:
    config = read(DEPLOY / "prometheus.yml")
    inside = mounts("prometheus")
    assert inside["/etc/prometheus/prometheus.yml"] == DEPLOY / "prometheus.yml"
    for name in config["rule_files"]:
        assert inside[f"/etc/prometheus/{name}"] == DEPLOY / "alerts.yml"
    (scraped,) = config["scrape_configs"]
    ((target,),) = (static["targets"] for static in scraped["static_configs"])
    assert target == f"convoy:{Settings.model_fields['port'].default}"
    assert "convoy" in SERVICES


def test_grafana_finds_prometheus_and_opens_on_the_dashboard() -> None:
    inside = mounts("grafana")
    (source,) = read(DEPLOY / "grafana/datasource.yml")["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert any(published.endswith(f":{port}") for published in SERVICES[host]["ports"])
    (provider,) = read(DEPLOY / "grafana/dashboards.yml")["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert json.loads(inside[home].read_text())["uid"] == "convoy"


def test_no_port_is_open_to_other_machines() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])

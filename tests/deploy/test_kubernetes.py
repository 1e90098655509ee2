"""The manifests of deploy/kubernetes are valid, and name what the service has.

The published schemas cover everything but the kinds of the Prometheus Operator and of KServe. Of these, the containers
are checked as those of a pod.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings, settings_table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
VERSION = "1.37"
CUSTOM = {"monitoring.coreos.com/v1", "serving.kserve.io/v1alpha1", "serving.kserve.io/v1beta1"}
PATHS = set(json.loads((ROOT / "openapi.json").read_text())["paths"])
BUNDLES = ("", "image-volume", "init-container")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def build(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the documents that kustomize makes of a folder, by kind."""
    made = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True, timeout=60)
    return {document["kind"]: document for document in yaml.safe_load_all(made.stdout)}


@pytest.fixture(scope="module", params=[(o, b) for o in ("cpu", "gpu") for b in BUNDLES], ids="-".join)
def documents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Returns the documents of an overlay with a source of bundles; without one, the base's volume claim."""
    overlay, bundles = request.param
    copy = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(FOLDER, copy)
    if bundles:
        with (copy / "overlays" / overlay / "kustomization.yaml").open("a") as file:
            file.write(f"components: [../../components/{bundles}]\n")
    return build(copy / "overlays" / overlay)


def pod_of(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = documents["Deployment"]["spec"]["template"]["spec"]
    return pod


def check_container(container: dict[str, Any]) -> None:
    """Checks the environment and the probes of a container of the service, and that it is confined."""
    variables = {entry["name"]: entry["value"] for entry in container["env"] if entry["name"].startswith("CONVOY_")}
    assert set(variables) <= {name for name, _, _ in settings_table()}
    Settings(**{name.removeprefix("CONVOY_").lower(): value for name, value in variables.items()})
    (port,) = container["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[probe]["httpGet"]
        assert get["path"] in PATHS
        assert get["port"] in {port["name"], port["containerPort"]}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    check_confined(container)


def check_confined(container: dict[str, Any]) -> None:
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@needs_kubectl
def test_every_document_is_valid(documents: dict[str, dict[str, Any]]) -> None:
    assert set(documents) == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
    }
    for document in documents.values():
        if document["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(document, VERSION, strict=True)


@needs_kubectl
def test_the_pod_runs_the_service_confined_and_has_time_to_drain(documents: dict[str, dict[str, Any]]) -> None:
    pod = pod_of(documents)
    (container,) = pod["containers"]
    check_container(container)
    for extra in pod.get("initContainers", ()):
        check_confined(extra)
    user = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert pod["securityContext"]["runAsNonRoot"]
    assert [str(pod["securityContext"]["runAsUser"])] == user
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    drain = int(variables["CONVOY_DRAIN_DELAY"]) + int(variables["CONVOY_DRAIN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] >= drain + 20  # as docs/operating.md says


@needs_kubectl
def test_the_bundles_are_mounted_where_the_image_reads_them(documents: dict[str, dict[str, Any]]) -> None:
    pod = pod_of(documents)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert all(len(volume) == 2 for volume in volumes.values())  # a name and one source
    assert mounts["artifacts"]["readOnly"]
    (workdir,) = set(re.findall(r"^WORKDIR (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert mounts["artifacts"]["mountPath"] == f"{workdir}/{Settings.model_fields['artifacts'].default}"
    for extra in pod.get("initContainers", ()):
        (mount,) = extra["volumeMounts"]
        assert mount["name"] == "artifacts"
        assert extra["command"][-1].rstrip("/") == mount["mountPath"]


@needs_kubectl
def test_everything_selects_the_pods_and_their_port(documents: dict[str, dict[str, Any]]) -> None:
    template = documents["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    port = template["spec"]["containers"][0]["ports"][0]["name"]
    (service_port,) = documents["Service"]["spec"]["ports"]
    assert service_port["targetPort"] == port
    (endpoint,) = documents["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == service_port["name"]
    assert endpoint["path"] in PATHS
    (rule,) = documents["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": port}]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == documents["Service"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert documents[kind]["spec"]["selector"]["matchLabels"] == labels
    assert documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels


@needs_kubectl
def test_the_autoscaler_scales_the_deployment_on_a_metric_of_the_service(
    documents: dict[str, dict[str, Any]], figures: dict[str, set[str]]
) -> None:
    spec = documents["HorizontalPodAutoscaler"]["spec"]
    deployment = documents["Deployment"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    names = [metric["pods"]["metric"]["name"] for metric in spec["metrics"] if metric["type"] == "Pods"]
    assert names == ["convoy_images_waiting"]
    assert set(names) <= set(figures)


@needs_kubectl
def test_the_overlays_ask_for_their_device_and_its_image() -> None:
    cpu, gpu = (pod_of(build(FOLDER / "overlays" / name))["containers"][0] for name in ("cpu", "gpu"))
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "CONVOY_DEVICE", "value": "cuda"} in gpu["env"]
    assert gpu["image"].endswith("-cuda")
    assert "nvidia" not in " ".join(strings(cpu))


def test_the_kserve_runtime_runs_the_service_on_the_models_that_kserve_mounts() -> None:
    runtime, service = (read(FOLDER / "kserve" / f"{name}.yaml") for name in ("serving-runtime", "inference-service"))
    (container,) = runtime["spec"]["containers"]
    check_container(container)
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}},
        VERSION,
        strict=True,
    )
    assert container["name"] == "kserve-container"
    assert {"name": "CONVOY_ARTIFACTS", "value": "/mnt/models"} in container["env"]
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}

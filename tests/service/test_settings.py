import json
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.errors import SettingsError
from service.settings import (
    Device,
    Settings,
    read_settings,
    readable,
    settings_table,
    unknown_variables,
    usable_cores,
    worker_count,
)


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> SettingsError:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        read_settings()
    return error.value


def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_PORT", "9000")
    monkeypatch.setenv("CONVOY_DEVICE", "cuda")
    monkeypatch.setenv("CONVOY_ARTIFACTS", "/models")
    settings = read_settings()
    assert (settings.port, settings.device, settings.artifacts) == (9000, Device.CUDA, Path("/models"))


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_DEFAULT_MODEL", "")
    monkeypatch.setenv("CONVOY_PORT", "")
    assert (read_settings().default_model, read_settings().port) == (None, 8000)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CONVOY_PORT", "http"),
        ("CONVOY_PORT", "70000"),
        ("CONVOY_WORKERS", "0"),
        ("CONVOY_DEVICE", "gpu"),
        ("CONVOY_VARIANT", "fp8"),
        ("CONVOY_MAX_BATCH", "-1"),
        ("CONVOY_VERSIONS", "newest"),
        ("CONVOY_VERSIONS", "mnist=x"),
        ("CONVOY_DEFAULT_MODEL", "../etc"),
        ("CONVOY_ROOT_PATH", "convoy"),
        ("CONVOY_ROOT_PATH", "/convoy/"),
        ("CONVOY_ROOT_PATH", "https://example.org/convoy"),
        ("CONVOY_CORS_ORIGINS", "https://app.example.org/"),
        ("CONVOY_CORS_ORIGINS", "https://app.example.org:443"),
        ("CONVOY_CORS_ORIGINS", "http://app.example.org:80"),
        ("CONVOY_CORS_ORIGINS", "app.example.org"),
        ("CONVOY_CORS_ORIGINS", "https://App.example.org"),
        ("CONVOY_CORS_ORIGINS", "https://app.example.org,"),
        ("CONVOY_CORS_ORIGINS", "null"),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    message = str(refusal(monkeypatch, **{variable: value}))
    assert message.startswith(f"{variable}={value} is not valid: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("variable", "value", "taken"),
    [
        ("CONVOY_WORKERS", "two", "'auto' or be an integer"),
        ("CONVOY_WORKERS", "0", "'auto' or be 1 or more"),
        ("CONVOY_VARIANT", "fp8", "'auto' or be 'fp32', 'int8' or 'fp16'"),
        ("CONVOY_RELOAD", "always", "'poll', 'explicit' or 'off'"),
        (
            "CONVOY_DEFAULT_MODEL",
            "AntsBees",
            "up to 64 lower-case letters, digits, '.', '_' and '-', first a letter or a digit",
        ),
    ],
)
def test_a_bad_value_gets_all_that_is_accepted(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, taken: str
) -> None:
    assert f"is not valid: it must be {taken}." in str(refusal(monkeypatch, **{variable: value}))


def test_only_the_first_of_two_bad_variables_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    message = str(refusal(monkeypatch, CONVOY_WORKERS="two", CONVOY_PORT="http"))
    assert message.startswith("CONVOY_PORT=http")
    assert "auto" not in message


@pytest.mark.parametrize("variable", ["CONVOY_API_KEYS", "CONVOY_ADMIN_KEYS"])
def test_a_bad_key_is_reported_by_its_position_only(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    error = refusal(monkeypatch, **{variable: "good,sha256:swordfish"})
    assert str(error).startswith(f"{variable} is not valid: key 2 starts with sha256:")
    assert "swordfish" not in "".join(traceback.format_exception(error))


KUBERNETES = {
    "CONVOY_SERVICE_HOST": "10.96.12.34",
    "CONVOY_SERVICE_PORT": "8000",
    "CONVOY_SERVICE_PORT_HTTP": "8000",
    "CONVOY_PORT": "tcp://10.96.12.34:8000",
    "CONVOY_PORT_8000_TCP": "tcp://10.96.12.34:8000",
    "CONVOY_PORT_8000_TCP_PROTO": "tcp",
    "CONVOY_PORT_8000_TCP_PORT": "8000",
    "CONVOY_PORT_8000_TCP_ADDR": "10.96.12.34",
    "CONVOY_CANARY_PORT": "tcp://10.96.12.35:8000",
    "CONVOY_CANARY_SERVICE_HOST": "10.96.12.35",
}


def test_the_variables_that_kubernetes_sets_for_a_service_named_convoy_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in KUBERNETES.items():
        monkeypatch.setenv(variable, value)
    assert read_settings().port == 8000
    assert unknown_variables(KUBERNETES) == []


def test_a_misspelt_variable_is_found() -> None:
    assert unknown_variables({"CONVOY_PROT": "1", "CONVOY_PORT": "1", "PORT": "1"}) == ["CONVOY_PROT"]


def test_the_table_describes_every_setting() -> None:
    table = {variable: (default, description) for variable, default, description in settings_table()}
    assert set(table) == {f"CONVOY_{name.upper()}" for name in Settings.model_fields}
    assert all(description for _, description in table.values())
    assert table["CONVOY_MAX_BODY_BYTES"][0] == "67108864"
    assert table["CONVOY_DEVICE"][0] == "auto"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_settings_arrive_in_another_process_as_they_are_with_their_secrets() -> None:
    settings = Settings(artifacts=Path("elsewhere"), workers=3, drain_delay=0.5, api_keys=SecretStr("a,b"))
    arrived = Settings(**json.loads(json.dumps(readable(settings))))
    assert arrived == settings
    assert arrived.api_keys.get_secret_value() == "a,b"


@pytest.mark.parametrize("keys", [",", " , ", " "])
def test_a_setting_of_separators_only_is_refused(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    assert "it contains no key" in str(refusal(monkeypatch, CONVOY_API_KEYS=keys))


UNLIMITED = Path("nowhere")


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.write_text("12:cpu,cpuacct:/docker/1\n0::/system.slice/convoy.service\n")
    return path


def test_without_a_limit_there_is_at_least_one_core(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, UNLIMITED) >= 1
    write(tmp_path, cpu__max="max 100000\n")
    assert usable_cores(tmp_path, UNLIMITED) == usable_cores(UNLIMITED, UNLIMITED)


def test_the_cpu_limit_of_a_container_is_at_least_one_core(tmp_path: Path) -> None:
    write(tmp_path, cpu__max="150000 100000\n")
    assert usable_cores(tmp_path, UNLIMITED) == 1
    write(tmp_path, cpu__max="50000 100000\n")
    assert usable_cores(tmp_path, UNLIMITED) == 1


def test_the_limit_of_a_parent_group_counts(tmp_path: Path, membership: Path) -> None:
    write(tmp_path / "root" / "system.slice" / "convoy.service", cpu__max="max 100000\n")
    write(tmp_path / "root" / "system.slice", cpu__max="100000 100000\n")
    assert usable_cores(tmp_path / "root", membership) == 1


def test_the_limit_of_cgroups_version_1_counts(tmp_path: Path, membership: Path) -> None:
    write(tmp_path / "root" / "cpu" / "docker" / "1", cpu__cfs_quota_us="100000\n", cpu__cfs_period_us="100000\n")
    assert usable_cores(tmp_path / "root", membership) == 1
    write(tmp_path / "root" / "cpu" / "docker" / "1", cpu__cfs_quota_us="-1\n")
    assert usable_cores(tmp_path / "root", membership) == usable_cores(UNLIMITED, UNLIMITED)


def test_auto_is_one_worker_per_core_or_one_on_a_gpu() -> None:
    assert worker_count("auto", gpu=False) == usable_cores()
    assert worker_count("auto", gpu=True) == 1
    assert worker_count(3, gpu=False) == worker_count(3, gpu=True) == 3

"""The coordinator over a folder, with workers that record their calls."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.default_model import write_default
from schemas.promotion import PROMOTION_FILE, PromotedBy, promote, read_promotion
from service.errors import (
    ConflictError,
    ForbiddenError,
    ModelNotFoundError,
    ModelRefusedError,
    NotReadyError,
    StartError,
)
from service.repository.coordinator import Coordinator
from service.repository.plan import Plan, Refused, VersionRef
from service.settings import Settings
from tests.support.altered_bundles import change_manifest
from tests.support.bundles import write_bundle

pytestmark = pytest.mark.anyio


class RecordingWorkers:
    """Refuses the versions in broken. Fails if a plan has a version that was not prepared."""

    def __init__(self) -> None:
        self.broken: set[tuple[str, int]] = set()
        self.prepared: list[tuple[str, int]] = []
        self.plans: list[Plan] = []
        self._held: set[VersionRef] = set()

    async def prepare(self, ref: VersionRef) -> Refused | None:
        self.prepared.append((ref.name, ref.version))
        await asyncio.sleep(0)
        if (ref.name, ref.version) in self.broken:
            return Refused(ref=ref, reason="It is broken.")
        self._held.add(ref)
        return None

    async def serve(self, plan: Plan) -> None:
        assert set(plan.serving) <= self._held
        self._held = set(plan.serving)
        self.plans.append(plan)

    @property
    def serving(self) -> dict[str, list[int]]:
        return {model.name: [ref.version for ref in model.serving] for model in self.plans[-1].models}

    def reasons(self, name: str) -> dict[int, str | None]:
        (model,) = (model for model in self.plans[-1].models if model.name == name)
        return dict.fromkeys(ref.version for ref in model.serving) | {
            one.ref.version: one.reason for one in model.refused
        }


class Service:
    def __init__(self, artifacts: Path, workers: RecordingWorkers | None = None, **settings: Any) -> None:
        self.artifacts = artifacts
        self.workers = workers or RecordingWorkers()
        read = Settings(**{"artifacts": artifacts, "reload": "explicit", **settings})
        self.coordinator = Coordinator(read, self.workers, poll_seconds=0.01)

    def put(self, name: str, version: int, content: str = "{}", *, broken: bool = False) -> Path:
        """Writes to a temporary sibling and renames it, as the trainer does. The workers refuse a broken one."""
        if broken:
            self.workers.broken.add((name, version))
        new = self.artifacts / name / f".new-{version}"
        new.mkdir(parents=True)
        (new / "manifest.json").write_text(content)
        return new.rename(self.artifacts / name / str(version))

    def remove(self, name: str, version: int) -> None:
        shutil.rmtree(self.artifacts / name / str(version))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    made = Service(tmp_path)
    made.put("a", 1)
    made.put("b", 1)
    return made


async def test_prepares_all_models_and_then_serves_them_at_once(service: Service) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    assert service.workers.prepared == [("a", 2), ("b", 1)]
    assert len(service.workers.plans) == 1
    assert service.workers.serving == {"a": [2], "b": [1]}
    assert service.coordinator.plan == service.workers.plans[-1]


async def test_start_fails_without_the_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="does not exist"):
        await Service(tmp_path / "nowhere").coordinator.start()


async def test_a_new_version_replaces_the_old_one_and_nothing_else_changes_the_plan(service: Service) -> None:
    await service.coordinator.start()
    service.put("a", 2)
    await service.coordinator.refresh()
    assert service.workers.serving == {"a": [2], "b": [1]}
    for _ in range(3):
        await service.coordinator.refresh()
    assert len(service.workers.plans) == 2
    assert len(service.workers.prepared) == 3


async def test_a_refused_version_leaves_the_old_one_and_is_tried_again_only_when_its_files_change(
    service: Service,
) -> None:
    await service.coordinator.start()
    bundle = service.put("a", 2, broken=True)
    for _ in range(3):
        await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]
    assert service.workers.reasons("a") == {1: None, 2: "It is broken."}
    assert service.workers.prepared.count(("a", 2)) == 1
    service.workers.broken = set()
    (bundle / "model.onnx").write_text("the rest of a copy that was under way")
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [2]
    assert service.workers.reasons("a") == {2: None}


async def test_a_restart_beside_a_refused_version_ends_in_the_same_state(service: Service) -> None:
    service.put("a", 2, broken=True)
    await service.coordinator.start()
    assert service.workers.serving["a"] == [1]
    assert service.workers.reasons("a")[2] == "It is broken."


async def test_a_load_with_a_version_rolls_back_until_a_load_without_one(service: Service) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    await service.coordinator.load("a", 1)
    assert service.workers.serving["a"] == [1]
    service.put("a", 3)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]
    await service.coordinator.load("a")
    assert service.workers.serving["a"] == [3]


@pytest.mark.parametrize("version", [None, 2])
async def test_a_refused_load_changes_only_the_reason_that_is_shown(service: Service, version: int | None) -> None:
    await service.coordinator.start()
    service.put("a", 2, broken=True)
    with pytest.raises(ModelRefusedError, match=r"a version 2 was refused: It is broken\. Version 1 serves\."):
        await service.coordinator.load("a", version)
    assert service.workers.serving["a"] == [1]
    assert service.workers.reasons("a")[2] == "It is broken."
    with pytest.raises(ModelRefusedError):  # a call is worth another try
        await service.coordinator.load("a", version)
    assert service.workers.prepared.count(("a", 2)) == 2
    service.workers.broken = set()
    await service.coordinator.load("a", version)
    assert service.workers.serving["a"] == [2]


async def test_serves_the_plan_again_after_a_refusal_so_that_no_worker_keeps_the_version(service: Service) -> None:
    """A worker may have loaded the version that another one refused: only a plan makes it release that version."""
    await service.coordinator.start()
    service.put("a", 2, broken=True)
    for _ in range(3):
        before = len(service.workers.plans)
        with pytest.raises(ModelRefusedError):
            await service.coordinator.load("a", 2)
        assert len(service.workers.plans) == before + 1


@pytest.mark.parametrize("held_back", ["by an unload", "by a pin", "by nothing"])
async def test_a_load_beside_a_refused_version_ends_in_the_state_of_a_restart(service: Service, held_back: str) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    if held_back == "by an unload":
        await service.coordinator.unload("a")
    elif held_back == "by a pin":
        await service.coordinator.load("a", 1)
    service.put("a", 3)
    service.put("a", 4, broken=True)
    with pytest.raises(ModelRefusedError, match=r"a version 4 was refused: It is broken\. Version 3 serves\."):
        await service.coordinator.load("a")
    assert service.workers.serving["a"] == [3]
    assert service.workers.reasons("a") == {3: None, 4: "It is broken."}
    restarted = Service(service.artifacts, RecordingWorkers())
    restarted.workers.broken = service.workers.broken
    await restarted.coordinator.start()
    assert restarted.coordinator.plan == service.coordinator.plan


async def test_a_load_without_a_valid_version_reports_that_none_serves_and_ends_the_unload(service: Service) -> None:
    await service.coordinator.start()
    await service.coordinator.unload("a")
    service.workers.broken = {("a", 1), ("a", 2)}
    bundle = service.put("a", 2)
    with pytest.raises(ModelRefusedError, match=r"a version 1 was refused: It is broken\. No version of a serves\."):
        await service.coordinator.load("a", 1)
    with pytest.raises(ModelRefusedError, match=r"a version 2 was refused: It is broken\. No version of a serves\."):
        await service.coordinator.load("a")
    assert service.workers.serving["a"] == []
    service.workers.broken = set()
    (bundle / "model.onnx").write_text("mended")
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [2]


async def test_a_refused_pin_does_not_serve_another_new_version(service: Service) -> None:
    await service.coordinator.start()
    service.put("a", 2)
    service.put("a", 3, broken=True)
    with pytest.raises(ModelRefusedError, match="Version 1 serves"):
        await service.coordinator.load("a", 3)
    assert service.workers.serving["a"] == [1]


async def test_a_load_keeps_the_current_version_if_no_other_is_good(service: Service) -> None:
    pinned = Service(service.artifacts, versions="a=2")
    pinned.workers.broken = {("a", 2)}
    service.put("a", 2)
    await pinned.coordinator.start()
    assert pinned.workers.serving["a"] == []
    await pinned.coordinator.load("a", 1)
    with pytest.raises(ModelRefusedError, match=r"a version 2 was refused: It is broken\. Version 1 serves"):
        await pinned.coordinator.load("a")
    assert pinned.workers.serving["a"] == [1]


async def test_a_load_of_a_refused_replacement_reports_that_the_old_bundle_serves(service: Service) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    service.workers.broken = {("a", 2)}
    service.remove("a", 2)
    service.put("a", 2, content="another one")
    with pytest.raises(ModelRefusedError, match="The previous bundle of version 2 continues to serve"):
        await service.coordinator.load("a")
    assert service.workers.serving["a"] == [2]
    assert ("a", 1) not in service.workers.prepared


async def test_a_refused_load_beside_a_pin_shows_its_reason_until_another_load(service: Service) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    await service.coordinator.load("a", 2)
    service.put("a", 3)
    service.workers.broken = {("a", 1), ("a", 3)}
    for number in (3, 1):
        with pytest.raises(ModelRefusedError, match="Version 2 serves"):
            await service.coordinator.load("a", number)
    service.put("a", 4)
    await service.coordinator.refresh()
    assert service.workers.reasons("a") == {1: "It is broken.", 2: None, 3: "It is broken."}
    assert service.workers.serving["a"] == [2]  # it is pinned still
    await service.coordinator.load("a", 2)
    assert service.workers.reasons("a") == {2: None}


async def test_a_refused_pin_of_a_replacement_keeps_the_other_versions_serving(service: Service) -> None:
    of_all = Service(service.artifacts, versions="all")
    service.put("a", 2)
    await of_all.coordinator.start()
    of_all.workers.broken = {("a", 2)}
    service.remove("a", 2)
    service.put("a", 2, content="another one")
    with pytest.raises(ModelRefusedError, match="The previous bundle of version 2 continues to serve"):
        await of_all.coordinator.load("a", 2)
    assert of_all.workers.serving["a"] == [1, 2]
    service.put("a", 4)
    await of_all.coordinator.refresh()
    assert of_all.workers.serving["a"] == [1, 2, 4]


async def test_an_unload_stays_until_a_newer_version_or_a_load(service: Service) -> None:
    await service.coordinator.start()
    service.put("a", 2)  # not seen yet, and known at the unload all the same
    await service.coordinator.unload("a")
    await service.coordinator.refresh()
    assert service.workers.serving == {"a": [], "b": [1]}
    service.put("a", 3, broken=True)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == []
    service.put("a", 4)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [4]
    await service.coordinator.unload("a")
    await service.coordinator.load("a")
    assert service.workers.serving["a"] == [4]


async def test_an_unload_ends_a_pin(service: Service) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    await service.coordinator.load("a", 1)
    await service.coordinator.unload("a")
    service.put("a", 3)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [3]


@pytest.mark.parametrize("name", ["c", "A", "a/1", "../a", "a\0", "", "./a", "a" * 5000])
async def test_rejects_unknown_names_and_versions(service: Service, name: str) -> None:
    await service.coordinator.start()
    for call in (service.coordinator.load, service.coordinator.unload):
        with pytest.raises(ModelNotFoundError, match="Models: a, b"):
            await call(name)
    with pytest.raises(ModelNotFoundError, match="Models: a, b"):
        await service.coordinator.promote(name, 1)
    for version in (7, 0, -1):
        with pytest.raises(ModelNotFoundError, match=f"no version {version} of a. Versions: 1"):
            await service.coordinator.load("a", version)
        with pytest.raises(ModelNotFoundError, match=f"no version {version} of a. Versions: 1"):
            await service.coordinator.promote("a", version)
    assert service.workers.serving == {"a": [1], "b": [1]}


async def test_a_deleted_version_stops_serving_and_its_overrides_are_forgotten(service: Service) -> None:
    service.put("a", 2)
    await service.coordinator.start()
    service.remove("a", 2)
    await service.coordinator.refresh()
    assert service.workers.serving == {"a": [1], "b": [1]}
    await service.coordinator.unload("a")
    service.remove("a", 1)
    await service.coordinator.refresh()
    assert service.workers.serving == {"b": [1]}
    service.put("a", 1)
    await service.coordinator.refresh()
    assert service.workers.serving == {"a": [1], "b": [1]}


@pytest.mark.parametrize("lost", [lambda folder: folder.rmdir(), lambda folder: None])
async def test_keeps_serving_when_the_whole_folder_is_lost(
    service: Service, lost: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    await service.coordinator.start()
    aside = service.artifacts.with_name("aside")
    service.artifacts.rename(aside)
    service.artifacts.mkdir()
    lost(service.artifacts)
    for _ in range(3):
        await service.coordinator.refresh()
    assert service.workers.serving == {"a": [1], "b": [1]}
    assert len(caplog.records) == 1  # logged once
    shutil.rmtree(service.artifacts, ignore_errors=True)
    aside.rename(service.artifacts)
    service.put("a", 2)
    await service.coordinator.refresh()
    assert service.workers.serving == {"a": [2], "b": [1]}


def record(service: Service, version: int, by: PromotedBy = PromotedBy.CLI) -> None:
    promote(service.artifacts / "a", version, by=by, reason="A test.")


async def test_serves_the_promoted_version_and_leaves_newer_ones_as_candidates(service: Service) -> None:
    record(service, 1)
    await service.coordinator.start()
    service.put("a", 2)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]
    assert ("a", 2) not in service.workers.prepared
    record(service, 2, by=PromotedBy.TRAIN)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [2]
    record(service, 1)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]


@pytest.mark.parametrize(
    ("content", "after_a_restart"), [("{", []), ('{"version": 7, "when": "", "by": "cli", "reason": ""}', [2])]
)
async def test_reports_a_wrong_promoted_json_once_and_serves_as_before(
    service: Service, content: str, after_a_restart: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    record(service, 1)
    service.put("a", 2)
    await service.coordinator.start()
    (service.artifacts / "a" / PROMOTION_FILE).write_text(content)
    for _ in range(3):
        await service.coordinator.refresh()
        assert service.workers.serving["a"] == [1]
    assert caplog.text.count("promoted.json' is ignored") == 1
    await assert_serves_after_a_restart(service, *after_a_restart)


async def assert_serves_after_a_restart(service: Service, *versions: int) -> None:
    restarted = Service(service.artifacts)
    await restarted.coordinator.start()
    assert restarted.workers.serving["a"] == [*versions]


async def test_a_damaged_promoted_json_refuses_the_versions_until_a_promotion(service: Service) -> None:
    service.put("a", 2)
    (service.artifacts / "a" / PROMOTION_FILE).write_text("{")
    await service.coordinator.start()
    assert service.workers.serving == {"a": [], "b": [1]}
    assert str(service.workers.reasons("a")[1]).startswith("promoted.json is damaged, so it is unknown which")
    with pytest.raises(ModelRefusedError, match=r"promoted\.json is damaged"):
        await service.coordinator.load("a")
    await service.coordinator.load("a", 2)
    assert service.workers.serving["a"] == [2]
    await service.coordinator.promote("a", 1)
    assert service.workers.serving["a"] == [1]
    await assert_serves_after_a_restart(service, 1)


async def test_a_damaged_promoted_json_keeps_new_versions_from_serving(service: Service) -> None:
    (service.artifacts / "a" / PROMOTION_FILE).write_text("{")
    await service.coordinator.start()
    assert service.workers.serving["a"] == [1]  # the only one
    service.put("a", 2)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]


@pytest.mark.parametrize("versions", ["latest", "a=1"])
async def test_a_damaged_promoted_json_does_not_matter_to_configured_versions(service: Service, versions: str) -> None:
    service.put("a", 2)
    (service.artifacts / "a" / PROMOTION_FILE).write_text("{")
    fixed = Service(service.artifacts, versions=versions)
    await fixed.coordinator.start()
    assert fixed.workers.serving["a"] == [2 if versions == "latest" else 1]


async def test_a_promotion_by_call_serves_ends_a_pin_and_an_unload_and_survives_a_restart(service: Service) -> None:
    for version in (2, 3):
        service.put("a", version)
    await service.coordinator.start()
    promotion = await service.coordinator.promote("a", 2)
    assert (promotion.version, promotion.previous, promotion.by) == (2, 3, PromotedBy.API)
    assert service.workers.serving["a"] == [2]
    await service.coordinator.load("a", 3)
    await service.coordinator.promote("a", 1)
    assert service.workers.serving["a"] == [1]
    await service.coordinator.unload("a")
    assert (await service.coordinator.promote("a", 2)).previous == 1
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [2]
    await assert_serves_after_a_restart(service, 2)


async def test_a_promotion_by_hand_in_the_folder_ends_a_pin_and_one_by_training_does_not(service: Service) -> None:
    for version in (2, 3):
        service.put("a", version)
    await service.coordinator.start()
    await service.coordinator.load("a", 1)
    record(service, 3, by=PromotedBy.TRAIN)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]
    record(service, 2, by=PromotedBy.CLI)
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [2]


async def test_a_refused_promotion_changes_nothing(service: Service) -> None:
    record(service, 1)
    await service.coordinator.start()
    service.put("a", 2, broken=True)
    with pytest.raises(ModelRefusedError, match=r"a version 2 was refused: It is broken\. Version 1 serves\."):
        await service.coordinator.promote("a", 2)
    assert service.workers.serving["a"] == [1]
    assert service.workers.reasons("a")[2] == "It is broken."
    promotion = read_promotion(service.artifacts / "a")
    assert promotion is not None
    assert promotion.version == 1


async def test_a_promotion_that_cannot_be_written_is_a_conflict_and_changes_nothing(service: Service) -> None:
    service.put("a", 2)
    record(service, 1)
    await service.coordinator.start()
    (service.artifacts / "a" / PROMOTION_FILE).unlink()
    (service.artifacts / "a" / PROMOTION_FILE).mkdir()  # even root cannot replace a folder by a file
    with pytest.raises(ConflictError, match=r"promoted\.json cannot be written: .* Make the folder writable"):
        await service.coordinator.promote("a", 2)
    assert service.workers.serving["a"] == [1]


@pytest.mark.parametrize("versions", ["latest", "all", "a=1"])
async def test_a_promotion_against_the_configured_versions_is_a_conflict(service: Service, versions: str) -> None:
    fixed = Service(service.artifacts, versions=versions)
    await fixed.coordinator.start()
    with pytest.raises(ConflictError, match="CONVOY_VERSIONS"):
        await fixed.coordinator.promote("a", 1)


def put_trained(service: Service, name: str, created: str, source: str = "folder", version: int = 1) -> None:
    """Writes a bundle with a complete manifest, trained at this time on data of this source."""
    bundle = write_bundle(service.artifacts.parent / "new", name, version)

    def change(manifest: dict[str, Any]) -> None:
        manifest["provenance"] |= {"created": created, "recipe": {"data": {"source": source}}}

    change_manifest(bundle, change)
    (service.artifacts / name).mkdir(parents=True, exist_ok=True)
    bundle.rename(service.artifacts / name / str(version))


@pytest.fixture
def trained(tmp_path: Path) -> Service:
    """An artifacts folder with only the quick start's model `digits`."""
    (tmp_path / "artifacts").mkdir()
    made = Service(tmp_path / "artifacts")
    put_trained(made, "digits", "2026-01-01T00:00:00Z", source="digits")
    return made


async def default_after_a_restart(service: Service) -> str | None:
    restarted = Service(service.artifacts)
    await restarted.coordinator.start()
    return restarted.coordinator.plan.default


async def test_keeps_the_first_model_as_default_when_others_are_added(trained: Service) -> None:
    await trained.coordinator.start()
    assert trained.coordinator.plan.default == "digits"
    put_trained(trained, "photos", "2026-02-01T00:00:00Z")
    await trained.coordinator.refresh()
    assert trained.coordinator.plan.default == "photos"
    for name, created, version in (("cars", "03", 1), ("ants", "01", 1), ("photos", "04", 2)):
        put_trained(trained, name, f"2026-{created}-01T00:00:00Z", version=version)
        await trained.coordinator.refresh()
        assert trained.coordinator.plan.default == "photos"
    await trained.coordinator.unload("photos")
    assert trained.coordinator.plan.default == "photos"
    shutil.rmtree(trained.artifacts / "ants")  # trained earlier, and added later: a restart cannot know
    assert await default_after_a_restart(trained) == "photos"
    trained.remove("photos", 1)
    trained.remove("photos", 2)
    assert await default_after_a_restart(trained) == "cars"


async def test_keeps_the_quick_starts_digits_as_default_until_another_model_serves(trained: Service) -> None:
    await trained.coordinator.start()
    trained.workers.broken = {("photos", 1)}
    put_trained(trained, "photos", "2026-02-01T00:00:00Z")
    await trained.coordinator.refresh()
    assert trained.coordinator.plan.default == "digits"
    put_trained(trained, "photos", "2026-03-01T00:00:00Z", version=2)
    await trained.coordinator.refresh()
    assert trained.coordinator.plan.default == "photos"


async def test_does_not_give_up_a_default_model_named_digits_with_data_of_its_own(trained: Service) -> None:
    trained.remove("digits", 1)
    put_trained(trained, "digits", "2026-01-01T00:00:00Z", source="csv")
    await trained.coordinator.start()
    put_trained(trained, "photos", "2025-01-01T00:00:00Z")
    await trained.coordinator.refresh()
    assert trained.coordinator.plan.default == "digits"


async def test_a_model_that_cannot_be_read_stays_the_default_after_a_restart(trained: Service) -> None:
    trained.put("photos", 1, content="{")
    assert await default_after_a_restart(trained) == "photos"


async def test_a_recorded_default_survives_the_removal_of_its_first_version_and_a_model_trained_earlier(
    trained: Service,
) -> None:
    put_trained(trained, "photos", "2026-02-01T00:00:00Z")
    write_default(trained.artifacts, "photos")
    put_trained(trained, "photos", "2026-04-01T00:00:00Z", version=2)
    put_trained(trained, "cars", "2026-03-01T00:00:00Z")
    put_trained(trained, "ants", "2025-03-01T00:00:00Z")
    trained.remove("photos", 1)
    assert await default_after_a_restart(trained) == "photos"


async def test_default_json_may_change_while_the_service_runs(
    trained: Service, caplog: pytest.LogCaptureFixture
) -> None:
    put_trained(trained, "photos", "2026-02-01T00:00:00Z")
    await trained.coordinator.start()
    for content in ('{"model": "digits"}', "{", '{"model": "cars"}'):
        (trained.artifacts / "default.json").write_text(content)
        for _ in range(2):
            await trained.coordinator.refresh()
        # without a usable record, the digits of the quick start give way again
        assert trained.coordinator.plan.default == ("digits" if "digits" in content else "photos")
    assert caplog.text.count("default.json' is ignored") == 2
    configured = Service(trained.artifacts, default_model="digits")
    write_default(trained.artifacts, "photos")
    await configured.coordinator.start()
    assert configured.coordinator.plan.default == "digits"


async def test_logs_each_ignored_folder_once(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    (service.artifacts / "Digits" / "1").mkdir(parents=True)
    await service.coordinator.start()
    for _ in range(3):
        await service.coordinator.refresh()
    assert caplog.text.count("is ignored") == 1
    (service.artifacts / "a" / "v2").mkdir()
    await service.coordinator.refresh()
    assert caplog.text.count("is ignored") == 2
    assert "Digits' is ignored: a model's name has lower-case letters" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_keeps_serving_a_model_whose_folder_cannot_be_read(service: Service) -> None:
    await service.coordinator.start()
    (service.artifacts / "a").chmod(0)
    try:
        await service.coordinator.refresh()
        assert service.workers.serving == {"a": [1], "b": [1]}
        with pytest.raises(NotReadyError, match="Permission denied"):
            await service.coordinator.load("a")
    finally:
        (service.artifacts / "a").chmod(0o700)


async def test_loads_a_replaced_bundle_again_and_keeps_the_old_one_if_it_is_refused(service: Service) -> None:
    await service.coordinator.start()
    service.remove("a", 1)
    service.put("a", 1, content="another one")
    await service.coordinator.refresh()
    assert service.workers.prepared.count(("a", 1)) == 2
    service.workers.broken = {("a", 1)}
    service.remove("a", 1)
    service.put("a", 1, content="a broken third one")
    await service.coordinator.refresh()
    assert service.workers.serving["a"] == [1]
    assert service.workers.reasons("a")[1] == "It is broken."
    await service.coordinator.refresh()
    assert service.workers.prepared.count(("a", 1)) == 3


async def test_explicit_loads_only_the_requested_model(service: Service) -> None:
    await service.coordinator.start()
    service.put("a", 2)
    service.put("b", 2)
    await asyncio.sleep(0.05)
    assert service.workers.serving == {"a": [1], "b": [1]}
    await service.coordinator.load("b")
    assert service.workers.serving == {"a": [1], "b": [2]}


async def test_off_forbids_changes(service: Service) -> None:
    fixed = Service(service.artifacts, reload="off")
    await fixed.coordinator.start()
    for call in (fixed.coordinator.load, fixed.coordinator.unload):
        with pytest.raises(ForbiddenError, match="CONVOY_RELOAD=off"):
            await call("a")
    with pytest.raises(ForbiddenError, match="CONVOY_RELOAD=off"):
        await fixed.coordinator.promote("a", 1)


class FailingWorkers(RecordingWorkers):
    """Fails at the first version 2, as if a worker had died."""

    failures = 1

    async def prepare(self, ref: VersionRef) -> Refused | None:
        if ref.version == 2 and self.failures:
            self.failures -= 1
            raise OSError("a worker is gone")
        return await super().prepare(ref)


async def test_poll_serves_new_versions_and_survives_failing_workers(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    polled = Service(service.artifacts, FailingWorkers(), reload="poll")
    await polled.coordinator.start()
    service.put("a", 2)
    async with asyncio.timeout(30):
        while polled.workers.serving["a"] != [2]:
            await asyncio.sleep(0.01)
    await polled.coordinator.close()
    service.put("a", 3)
    await asyncio.sleep(0.05)
    assert polled.workers.serving["a"] == [2]
    assert "a worker is gone" in caplog.text


async def test_warns_about_a_pin_of_an_unknown_model(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    await Service(service.artifacts, versions="a=1,dogs=3").coordinator.start()
    assert "pins dogs, but this model does not exist" in caplog.text

import json
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.bundle import open_bundle
from schemas.errors import FormatVersionError, ManifestError
from schemas.manifest import (
    Duplicates,
    InputSpec,
    Interpolation,
    ModelManifest,
    Resize,
    Task,
    VariantName,
    parse_manifest,
    render_json,
)
from tests.support.bundles import write_bundle
from tests.support.encoded_images import BOUNDED

Fields = dict[str, Any]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("artifacts"))).manifest


@pytest.fixture
def fields(manifest: ModelManifest) -> Fields:
    loaded: Fields = json.loads(render_json(manifest))
    return loaded


numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
file_names = st.from_regex(r"[A-Za-z0-9_-]{1,8}(/[A-Za-z0-9_-]{1,8}){0,2}\.[a-z]{3}", fullmatch=True)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)


identities = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
        "version": st.integers(1, 10**12),
        "labels": st.lists(st.text(max_size=6), min_size=2, max_size=4, unique=True),
        "weights": st.fixed_dictionaries({"file": file_names, "sha256": hashes}),
        "input": st.fixed_dictionaries(
            {
                "height": st.integers(1, 4096),
                "width": st.integers(1, 4096),
                "channels": st.sampled_from([1, 3]),
                "resize": st.sampled_from(Resize),
                "interpolation": st.sampled_from(Interpolation),
            }
        ),
    }
)
recipes = st.dictionaries(st.text(max_size=6), json_values, max_size=4)
more_variants = st.lists(st.sampled_from(["int8", "fp16"]), unique=True)


@given(identities, recipes, more_variants)
@BOUNDED
def test_a_manifest_survives_rendering_and_parsing(
    manifest: ModelManifest, identity: Fields, recipe: Fields, variants: list[str]
) -> None:
    fields = manifest.model_dump(mode="json") | identity
    fields["provenance"]["recipe"] = recipe
    fields["variants"] += [{**fields["variants"][0], "name": variant} for variant in variants]
    built = ModelManifest.model_validate(fields)
    assert parse_manifest(render_json(built)) == built
    assert parse_manifest(render_json(built).encode()) == built


def test_finds_a_variant_by_name(manifest: ModelManifest) -> None:
    assert manifest.variant(VariantName.FP32) is manifest.fp32
    assert manifest.variant(VariantName.INT8) is None


def test_accepts_a_binary_task_with_two_labels(fields: Fields) -> None:
    fields |= {"task": "binary", "labels": ["cat", "dog"]}
    assert parse_manifest(json.dumps(fields)).task is Task.BINARY


def test_reads_a_manifest_from_before_calibration_and_variants(fields: Fields) -> None:
    for key in ("dropped_variants", "calibration", "reject"):
        del fields[key]
    del fields["variants"][0]["speed"]
    manifest = parse_manifest(json.dumps(fields))
    assert (manifest.dropped_variants, manifest.calibration, manifest.reject) == ((), None, None)
    assert manifest.fp32.speed == ()


HALVES = {"coverage": 0.5, "accuracy": 0.5}


def test_reads_calibration_reject_threshold_and_dropped_variants(fields: Fields) -> None:
    errors = {"before": 0.2, "after": 0.1}
    fields["calibration"] = {"temperature": 1.5, "validation": errors, "test": errors}
    fields["reject"] = {"target_accuracy": 0.9, "threshold": 0.5, "validation": HALVES, "test": HALVES}
    fields["dropped_variants"] = [{"name": "int8", "reason": "0.93 times the speed of fp32"}]
    speed = {"batch": 1, "images_per_second": 30.0, "fp32_images_per_second": 20.0}
    fields["variants"].append({**fields["variants"][0], "name": "fp16", "speed": [speed]})
    manifest = parse_manifest(json.dumps(fields))
    assert manifest.variants[1].speed[0].ratio == 1.5
    assert manifest.calibration is not None
    assert manifest.calibration.test.after == 0.1
    assert parse_manifest(render_json(manifest)) == manifest


def put(*path: str | int, value: object) -> Callable[[Fields], None]:
    return change_at(path, lambda parent, key: operator.setitem(parent, key, value))


def drop(*path: str) -> Callable[[Fields], None]:
    return change_at(path, operator.delitem)


def change_at(path: Sequence[str | int], change: Callable[[Any, Any], None]) -> Callable[[Fields], None]:
    def apply(fields: Any) -> None:
        change(reduce(operator.getitem, path[:-1], fields), path[-1])

    return apply


def twice_fp32(fields: Fields) -> None:
    fields["variants"] *= 2


WRONG: dict[str, tuple[Callable[[Fields], None], str]] = {
    "an unknown field": (put("labls", value=[]), "labls"),
    "an unknown field further in": (put("input", "depth", value=3), "input.depth"),
    "no labels": (drop("labels"), "labels"),
    "no hash": (drop("weights", "sha256"), "weights.sha256"),
    "no provenance": (drop("provenance"), "provenance"),
    "a name in capitals": (put("name", value="Digits"), "name"),
    "a hidden name": (put("name", value=".digits"), "name"),
    "a name with a slash": (put("name", value="a/b"), "name"),
    "a name with a line break": (put("name", value="digits\n"), "name"),
    "an endless name": (put("name", value="a" * 65), "name"),
    "version 0": (put("version", value=0), "version"),
    "a version in quotes": (put("version", value="1"), "version"),
    "a version that is true": (put("version", value=True), "version"),
    "an unknown task": (put("task", value="regression"), "task"),
    "a label twice": (put("labels", value=["a", "b", "a"]), "^manifest.json: labels must be unique.$"),
    "one label": (put("labels", value=["a"]), "labels"),
    "a binary task with three labels": (put("task", value="binary"), "two labels"),
    "two channels": (put("input", "channels", value=2), "grey"),
    "no height": (put("input", "height", value=0), "input.height"),
    "an endless width": (put("input", "width", value=4097), "input.width"),
    "an unknown resize policy": (put("input", "resize", value="squash"), "input.resize"),
    "an unknown interpolation": (put("input", "interpolation", value="cubic"), "input.interpolation"),
    "no variants": (put("variants", value=[]), "variants"),
    "no fp32": (put("variants", 0, "name", value="int8"), "fp32"),
    "fp32 twice": (twice_fp32, "variant names must be unique"),
    "an unknown variant": (put("variants", 0, "name", value="fp8"), "variants.0.name"),
    "a tolerance of 0": (put("variants", 0, "golden_tolerance", value=0), "golden_tolerance"),
    "a tolerance that allows anything": (put("variants", 0, "golden_tolerance", value=1), "golden_tolerance"),
    "an accuracy above 1": (put("metrics", "test", "accuracy", value=1.01), "metrics.test.accuracy"),
    "a temperature of 0": (
        put("calibration", value={"temperature": 0, "validation": {}, "test": {}}),
        "calibration.temperature",
    ),
    "a variant that is kept and dropped": (
        put("dropped_variants", value=[{"name": "fp32", "reason": "slow"}]),
        "in both variants and dropped_variants",
    ),
    "neither threshold nor reason": (
        put("reject", value={"target_accuracy": 0.9, "threshold": None}),
        "or only a reason",
    ),
    "a threshold with the results of only one split": (
        put("reject", value={"target_accuracy": 0.9, "threshold": 0.5, "validation": HALVES}),
        "or only a reason",
    ),
    "no golden image": (put("golden", "images", value=[]), "golden.images"),
    "a short hash": (put("weights", "sha256", value="0" * 63), "weights.sha256"),
    "a hash in capitals": (put("weights", "sha256", value="A" * 64), "weights.sha256"),
    "a hash with a line break": (put("weights", "sha256", value="0" * 64 + "\n"), "weights.sha256"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_names_the_invalid_field(fields: Fields, fault: str) -> None:
    change, message = WRONG[fault]
    change(fields)
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(fields))


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "..",
        "a/../../x",
        "/abs",
        "a//b",
        "a/",
        "./a",
        ".",
        "",
        "a\\b",
        "C:\\x",
        "a b",
        "a\n",
        "a\0",
        "é",
        "~/x:y",
    ],
)
def test_refuses_a_path_that_may_leave_the_bundle(fields: Fields, path: str) -> None:
    for place in (("weights",), ("variants", 0), ("golden", "expected"), ("golden", "images", 0)):
        changed = json.loads(json.dumps(fields))
        put(*place, "file", value=path)(changed)
        with pytest.raises(ManifestError, match="plain relative path"):
            parse_manifest(json.dumps(changed))


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None])
def test_reports_another_format_version_before_any_other_fault(version: object) -> None:
    with pytest.raises(FormatVersionError, match="reads version 1"):
        parse_manifest(json.dumps({"format_version": version, "what": "else"}))


def test_refuses_a_manifest_without_a_format_version(fields: Fields) -> None:
    del fields["format_version"]
    with pytest.raises(FormatVersionError):
        parse_manifest(json.dumps(fields))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="half an object"),
        pytest.param("format_version: 1", id="YAML"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param("[1]", id="a list"),
        pytest.param("1", id="a number"),
        pytest.param("null", id="null"),
        pytest.param('{"a":' * 100_000, id="endlessly nested"),
    ],
)
def test_refuses_anything_but_a_json_object(text: str | bytes) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        parse_manifest(text)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "place", [("provenance", "duration_seconds"), ("provenance", "recipe", "rate"), ("metrics", "test", "log_loss")]
)
def test_refuses_a_number_that_is_not_finite(fields: Fields, place: tuple[str, ...], number: float) -> None:
    put(*place, value=number)(fields)
    with pytest.raises(ManifestError):
        parse_manifest(json.dumps(fields))


def test_reads_a_manifest_from_before_duplicates_were_counted(fields: Fields) -> None:
    del fields["provenance"]["data"]["duplicates"]
    assert parse_manifest(json.dumps(fields)).provenance.data.duplicates is None
    fields["provenance"]["data"]["duplicates"] = {"validation": 3, "test": 2}
    assert parse_manifest(json.dumps(fields)).provenance.data.duplicates == Duplicates(validation=3, test=2)


def test_reads_a_manifest_from_before_top_k_and_areas(fields: Fields) -> None:
    for split in ("validation", "test"):
        for later in ("top_k", "roc_auc", "average_precision", "notes"):
            del fields["metrics"][split][later]
    found = parse_manifest(json.dumps(fields)).metrics.test
    assert (found.top_k, found.roc_auc, found.average_precision, found.notes) == ((), None, None, ())


def test_refuses_to_write_a_number_that_is_not_finite(manifest: ModelManifest) -> None:
    fields = manifest.model_dump()
    fields["provenance"]["recipe"] = {"rate": float("nan")}
    with pytest.raises(ValidationError, match="finite"):
        ModelManifest.model_validate(fields)


def test_the_shape_is_height_width_channels() -> None:
    assert InputSpec(height=2, width=3, channels=1).shape == (2, 3, 1)


def test_renders_a_confusion_matrix_with_one_line_per_class_and_keeps_strings(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    labels = ("[\n1,\n2]", "[ 1 ]", "blue")
    text = render_json(manifest.model_copy(update={"labels": labels}))
    assert parse_manifest(text).labels == labels
    assert "\n        [1, 0, 0],\n" in text


def test_the_value_range_of_32_bit_images_is_written_only_if_there_is_one() -> None:
    """Readers of an older release refuse unknown fields."""
    size = InputSpec(height=1, width=1, channels=1)
    assert "value_range" not in size.model_dump_json()
    wide = size.model_copy(update={"value_range": (0.0, 1.0)})
    assert InputSpec.model_validate_json(wide.model_dump_json()) == wide
    with pytest.raises(ValueError, match="black must be the smaller"):
        InputSpec(height=1, width=1, channels=1, value_range=(1, 0))

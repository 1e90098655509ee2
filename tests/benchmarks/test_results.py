import shlex
from pathlib import Path

import pytest
from pydantic import JsonValue

from benchmarks.after_training import VariantResult
from benchmarks.results import Result, Run, arguments, claims, conclusion, files, read_runs, render, with_claim
from benchmarks.rows import ROWS, Row
from schemas.bundle import open_bundle
from schemas.evaluation import Interval
from schemas.manifest import (
    BatchSpeed,
    CalibrationErrors,
    DataProvenance,
    DroppedVariant,
    Provenance,
    TemperatureScaling,
    VariantName,
)
from tests.support.bundles import write_bundle
from trainer.cli.main import parse
from trainer.recipe import Recipe
from trainer.recipes.registry import RECIPES, find_recipe, presets

DIGITS = Row("digits", aim=0.9, seconds=10)


def run(accuracy: float = 0.95, seed: int = 0, seconds: float = 5.0, **changes: object) -> Run:
    recipe = Recipe.model_validate(find_recipe("digits", "default").model_dump() | {"seed": seed} | changes)
    provenance = Provenance(
        recipe=recipe.model_dump(mode="json"),
        data=DataProvenance(name="digits", content_hash="0" * 64, train=1, validation=1, test=100),
        seed=seed,
        epochs=1,
        best_epoch=1,
        parameters=1,
        device="cpu (some, 2 threads)",
        duration_seconds=seconds,
        created="2026-01-01T00:00:00Z",
        git_commit=None,
        libraries={"torch": "2.15.0+cu132"},
    )
    return Run(provenance=provenance, accuracy=accuracy, accuracy_interval=Interval(lower=0.9, upper=0.98), n=100)


def test_the_table_and_the_docstrings_match_the_runs() -> None:
    for path, text in files(read_runs()).items():
        assert path.read_text() == text, f"{path.name}: run python -m benchmarks.results write"


def test_every_row_is_a_valid_command_and_every_preset_has_a_row() -> None:
    rows = {(row.recipe_name, row.preset) for row in ROWS}
    assert rows == {(name, preset) for name in RECIPES for preset in presets(name)}
    assert parse(shlex.split(ROWS[-1].command)).preset == ROWS[-1].preset
    assert all(isinstance(row.recipe, Recipe) for row in ROWS)


def test_a_run_counts_only_for_the_current_recipe_on_the_rows_device() -> None:
    assert run(seed=7).belongs_to(DIGITS)
    assert not run(epochs=21).belongs_to(DIGITS)
    assert not run().belongs_to(Row("digits", device="cuda"))
    assert not run().belongs_to(Row("digits", data="flowers"))


def test_the_runs_of_a_limit_draw_other_images_and_belong_to_one_row(tmp_path: Path) -> None:
    row, settings = Row("digits", settings=("data.limit=100",)), find_recipe("digits", "default").data.model_dump()
    assert row.name == "digits data.limit=100"
    for seed in (0, 1):
        options = parse(arguments(row, seed, tmp_path))
        assert {"data.limit=100", f"data.split_seed={seed}"} <= set(options.set)
        assert run(seed=seed, data=settings | {"limit": 100, "split_seed": seed}).belongs_to(row)
    assert not run(data=settings | {"limit": 101}).belongs_to(row)
    assert not run(data=settings | {"split_seed": 1}).belongs_to(DIGITS)


def test_a_run_counts_with_the_precision_that_auto_chose_but_not_with_another_than_the_rows() -> None:
    automatic = find_recipe("cifar10", "default").model_dump()
    assert run(**automatic | {"precision": "bf16"}).belongs_to(Row("cifar10"))
    assert not run(precision="bf16").belongs_to(DIGITS)


def test_a_run_records_the_name_but_not_the_path_of_starting_weights(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    recipe: dict[str, JsonValue] = {"transfer": {"weights": "/home/someone/pre/trained", "sha256": "1" * 64}}
    provenance = manifest.provenance.model_copy(update={"recipe": recipe})
    kept = Run.of(manifest.model_copy(update={"provenance": provenance})).provenance.recipe
    assert kept == {"transfer": {"weights": "trained", "sha256": "1" * 64}}


def test_the_interval_is_over_seeds_if_there_are_three_and_else_over_test_images() -> None:
    one = Result(DIGITS, (run(0.95),))
    assert one.interval == "90.00% to 98.00% over test images"
    three = Result(DIGITS, tuple(run(accuracy, seed) for seed, accuracy in enumerate((0.94, 0.95, 0.96))))
    # Student's t with two degrees of freedom: 4.303 * 0.01 / sqrt(3)
    assert three.interval == "92.52% to 97.48% over seeds"
    assert three.mean == pytest.approx(0.95)
    equal = Result(DIGITS, tuple(run(0.95, seed) for seed in range(3)))
    assert equal.interval == one.interval


@pytest.mark.parametrize(
    ("accuracy", "seconds", "verdict"), [(0.95, 5, "reached"), (0.89, 5, "missed"), (0.95, 11, "missed")]
)
def test_a_target_is_reached_if_the_mean_meets_it_in_time(accuracy: float, seconds: float, verdict: str) -> None:
    assert Result(DIGITS, (run(accuracy, seconds=seconds),)).verdict == verdict


@pytest.mark.parametrize(("command_seconds", "verdict"), [(9, "reached"), (11, "missed"), (None, "missed")])
def test_a_target_for_the_whole_command_needs_its_time(command_seconds: float | None, verdict: str) -> None:
    whole = Row("digits", aim=0.9, command_seconds=10)
    timed = run(seconds=5).model_copy(update={"command_seconds": command_seconds})
    assert Result(whole, (timed,)).verdict == verdict
    assert Result(whole, (timed,)).target == "90.0% in 10 s, whole command"


def measured(*, before: float, kept: float | None) -> Run:
    speed = (BatchSpeed(batch=1, images_per_second=150, fp32_images_per_second=100),)
    int8 = VariantName.INT8
    return run().model_copy(
        update={
            "calibration": CalibrationErrors(before=before, after=0.01),
            "variants": () if kept is None else (VariantResult(name=int8, accuracy=kept, speed=speed),),
            "dropped_variants": (DroppedVariant(name=int8, reason="too slow"),) if kept is None else (),
        }
    )


def test_calibration_and_variants_are_means_over_the_runs_that_have_them() -> None:
    result = Result(DIGITS, (run(), measured(before=0.1, kept=0.9), measured(before=0.2, kept=0.92)))
    assert "| 0.1500 -> 0.0100 | 91.00%, 1.50x at batch 1 |  | 100 of digits |" in render([result])
    some = Result(DIGITS, (measured(before=0.1, kept=0.9), measured(before=0.1, kept=None)))
    assert some.variant(VariantName.INT8) == "90.00%, 1.50x at batch 1 (kept by 1 of 2)"
    none = Result(DIGITS, (measured(before=0.1, kept=None),))
    assert none.variant(VariantName.INT8) == "dropped: too slow"


def test_a_run_from_before_calibration_and_variants_has_empty_cells() -> None:
    line = run().model_dump_json(exclude={"calibration", "variants", "dropped_variants"})
    old = Run.model_validate_json(line)
    assert "|  |  |  | 100 of digits |" in render([Result(DIGITS, (old,))])


def test_a_run_reads_calibration_and_variants_from_the_manifest(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    int8 = manifest.fp32.model_copy(update={"name": VariantName.INT8})
    errors = CalibrationErrors(before=0.3, after=0.2)
    scaling = TemperatureScaling(temperature=2, validation=CalibrationErrors(before=0, after=0), test=errors)
    taken = Run.of(manifest.model_copy(update={"variants": (manifest.fp32, int8), "calibration": scaling}))
    assert taken.calibration == errors
    assert [(entry.name, entry.accuracy) for entry in taken.variants] == [("int8", int8.metrics.accuracy)]


def test_every_line_of_the_table_has_as_many_cells_as_its_header() -> None:
    results = [Result(DIGITS, (measured(before=0.1, kept=0.9),)), Result(DIGITS, ())]
    assert len({line.count("|") for line in render(results).splitlines() if line.startswith("|")}) == 1


def test_the_page_opens_with_missed_targets_and_unmeasured_recipes() -> None:
    missed, reached = Result(DIGITS, (run(0.85, seconds=5),)), Result(Row("digits", aim=0.9), (run(0.95),))
    text = conclusion([missed, reached, Result(Row("mnist"), ())])
    assert text.startswith("1 of 2 measured recipes with a target reach it; digits reaches 85.00% in 5 s instead of ")
    assert text.endswith("\nNot measured yet: mnist.")


def test_a_row_without_runs_is_not_measured() -> None:
    empty = Result(Row("digits", aim=0.9), ())
    assert "| not measured |" in render([empty])
    assert claims([empty])["digits"].endswith("    digits: not measured")


def test_a_new_claim_replaces_only_the_old_claim(tmp_path: Path) -> None:
    source = '"""First line.\n\nWhy.\n"""\n\ncode = """not this"""\n\nmore = 1\n'
    once = with_claim(source, "Measured (see x):\n\n    a: 1")
    assert once == (
        '"""First line.\n\nWhy.\n\nMeasured (see x):\n\n    a: 1\n"""\n\ncode = """not this"""\n\nmore = 1\n'
    )
    assert with_claim(once, "Measured (see x):\n\n    a: 2") == once.replace("a: 1", "a: 2")

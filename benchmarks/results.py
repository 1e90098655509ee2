"""Writes docs/results.md, the measured results of each recipe, from the manifests of trained bundles.

    python -m benchmarks.results run digits "cifar10 quick" --data data    # trains the missing seeds
    python -m benchmarks.results add artifacts/digits/1                    # adds an existing bundle
    python -m benchmarks.results write                                     # writes the table and the docstrings

Each run is one line of docs/results.jsonl, so the table can be filled step by step. A run counts for a row only while
its recipe equals the row's current recipe; after a change of the recipe, train again.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError
from scipy import stats

from benchmarks.after_training import VariantResult, calibration_cell, variant_cell, variant_results
from benchmarks.rows import ROWS, Row
from schemas.base import Frozen
from schemas.evaluation import Interval
from schemas.manifest import (
    CalibrationErrors,
    DroppedVariant,
    ModelManifest,
    Provenance,
    VariantName,
    parse_manifest,
)
from trainer.recipe import PRETRAINED, InputConfig, Precision, Recipe, Source
from trainer.recipes.registry import RECIPES

ROOT = Path(__file__).parent.parent
RUNS, TABLE = ROOT / "docs" / "results.jsonl", ROOT / "docs" / "results.md"
NOT_MEASURED = "not measured"


class Run(Frozen):
    """One line of docs/results.jsonl: the results of one training run."""

    provenance: Provenance
    command_seconds: Annotated[float | None, Field(description="of the whole command; null if it was not timed")] = None
    accuracy: float
    accuracy_interval: Interval
    n: int
    calibration: Annotated[CalibrationErrors | None, Field(description="on the test split; null for older runs")] = None
    variants: Annotated[
        tuple[VariantResult, ...], Field(description="variants other than fp32, on the test split")
    ] = ()
    dropped_variants: tuple[DroppedVariant, ...] = ()

    @classmethod
    def of(cls, manifest: ModelManifest, command_seconds: float | None = None) -> "Run":
        test = manifest.metrics.test
        return cls(
            provenance=_without_weights_path(manifest.provenance),
            command_seconds=command_seconds,
            accuracy=test.accuracy,
            accuracy_interval=test.accuracy_interval,
            n=test.n,
            calibration=None if manifest.calibration is None else manifest.calibration.test,
            variants=variant_results(manifest),
            dropped_variants=manifest.dropped_variants,
        )

    def belongs_to(self, row: Row) -> bool:
        try:
            recipe = Recipe.model_validate(self.provenance.recipe)
        except ValidationError:  # the recipe has a setting that no longer exists
            return False
        device = "cpu" if self.provenance.device.startswith("cpu") else "cuda"
        same_data = row.data in {"", self.provenance.data.name}
        if row.recipe.precision is Precision.AUTO:  # newer runs record the precision that auto chose
            recipe = recipe.model_copy(update={"precision": Precision.AUTO})
        return device == row.device and same_data and _comparable(recipe) == _comparable(row.recipe)


def _without_weights_path(provenance: Provenance) -> Provenance:
    """Keeps only the file name of starting weights: paths differ between machines, and the hash is recorded."""
    transfer = provenance.recipe.get("transfer")
    if not isinstance(transfer, dict) or not isinstance(transfer.get("weights"), str):
        return provenance
    named = transfer | {"weights": Path(str(transfer["weights"])).name}
    return provenance.model_copy(update={"recipe": provenance.recipe | {"transfer": named}})


def _comparable(recipe: Recipe) -> Recipe:
    """Replaces the settings in which runs of one row may differ.

    These are the name, the seeds (of a limit, each run draws other images), the form of the input size, and the path
    and hash of the weights.
    """
    transfer = recipe.transfer.model_copy(update={"sha256": None})
    if transfer.weights not in {None, PRETRAINED}:
        transfer = transfer.model_copy(update={"weights": "a bundle"})
    size = InputConfig.model_validate(spec.model_dump()) if (spec := recipe.data.input.spec) else recipe.data.input
    drawn = {} if recipe.data.limit is None else {"split_seed": 0}
    data = recipe.data.model_copy(update={"input": size} | drawn)
    return recipe.model_copy(update={"name": "any", "seed": 0, "transfer": transfer, "data": data})


@dataclass(frozen=True)
class Result:
    """The runs of a row, ordered by seed."""

    row: Row
    runs: tuple[Run, ...]

    @property
    def accuracies(self) -> list[float]:
        return [run.accuracy for run in self.runs]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> str:
        """The 95% interval: Student's t over three or more seeds that differ, else Wilson's over test images."""
        if len(self.runs) >= 3 and len(set(self.accuracies)) > 1:
            half = stats.t.ppf(0.975, len(self.runs) - 1) * np.std(self.accuracies, ddof=1) / np.sqrt(len(self.runs))
            return f"{self.mean - half:.2%} to {min(self.mean + half, 1):.2%} over seeds"
        return f"{self.runs[0].accuracy_interval} over test images"

    @property
    def seconds(self) -> list[float]:
        return [run.provenance.duration_seconds for run in self.runs]

    @property
    def time(self) -> str:
        return _range(self.seconds)

    @property
    def command_seconds(self) -> list[float]:
        """Of the runs that were timed from start to end; empty if none was."""
        return [run.command_seconds for run in self.runs if run.command_seconds is not None]

    @property
    def judged_time(self) -> str:
        """Of the whole command if the target limits that."""
        return self.time if self.row.command_seconds is None else _range(self.command_seconds or self.seconds)

    @property
    def calibration(self) -> str:
        return calibration_cell([run.calibration for run in self.runs if run.calibration is not None])

    def variant(self, name: VariantName) -> str:
        kept = [variant for run in self.runs for variant in run.variants if variant.name is name]
        return variant_cell(kept, [entry for run in self.runs for entry in run.dropped_variants if entry.name is name])

    @property
    def target(self) -> str:
        row, limit = self.row, ""
        if row.command_seconds is not None:
            limit = f" in {row.command_seconds:g} s, whole command"
        elif row.seconds is not None:
            limit = f" in {row.seconds:g} s"
        return "" if row.aim is None else f"{row.aim:.1%}{limit}"

    @property
    def verdict(self) -> str:
        if self.row.aim is None or not self.runs:
            return ""
        row, whole = self.row, self.command_seconds
        within = row.seconds is None or max(self.seconds) <= row.seconds
        if row.command_seconds is not None:
            within = len(whole) == len(self.runs) and max(whole) <= row.command_seconds
        return "reached" if self.mean >= self.row.aim and within else "missed"


def _range(seconds: Sequence[float]) -> str:
    low, high = (f"{value:,.0f}" for value in (min(seconds), max(seconds)))
    return f"{low} s" if low == high else f"{low} to {high} s"


def read_runs() -> list[Run]:
    return [Run.model_validate_json(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []


def results(runs: Sequence[Run]) -> list[Result]:
    """Returns one result per row, with the last run of each seed."""
    rows = []
    for row in ROWS:
        by_seed = {run.provenance.seed: run for run in runs if run.belongs_to(row)}
        rows.append(Result(row, tuple(by_seed[seed] for seed in sorted(by_seed))))
    return rows


def render(found: Sequence[Result]) -> str:
    """Returns the text of docs/results.md."""
    lines = [
        "# Results",
        "",
        conclusion(found),
        "",
        "`python -m benchmarks.results` writes this page from the manifests of trained bundles.",
        "Each run is one line of [results.jsonl](results.jsonl).",
        "",
        "- **Test accuracy** is the mean over the seeds, measured on the test split through ONNX Runtime.",
        "  The settings of a recipe were chosen on the validation split; exceptions are stated in the recipe's file.",
        "- **95% interval**: over the seeds if there are three or more that differ, otherwise over the test images of",
        "  one run.",
        "- **Training time** excludes export and report. Single-threaded runs shared the machine.",
        "  Time-budgeted runs that were slowed by other jobs are excluded.",
        "- **Whole command** is the time from the start of the command to its end: it also reads the images, with no",
        "  cache of an earlier run, and writes the bundle with its report and variants.",
        "- **Calibration error** is the expected calibration error on the test split, before and after calibration.",
        "- **int8 and fp16** give the variant's test accuracy and its speed relative to fp32; int8 on one CPU thread.",
        "  If the cells are empty, the run predates variants.",
        "- The rows of cifar10, cifar10-94 and photos scratch predate two changes of the `fast` network. Batch norm's",
        "  epsilon was 1e-12 (now 1e-5), and its first layer was prepared on 5,000 images (now 1,000).",
        "",
        "| Recipe | Command | Test accuracy | 95% interval | Seeds | Training time | Whole command | Target | "
        "Reached? | Calibration error | int8 | fp16 | Test images | Machine |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(result) for result in found]
    return "\n".join(lines) + "\n"


def conclusion(found: Sequence[Result]) -> str:
    """Returns two sentences: the recipes that reach their targets, and those that were not measured."""
    judged = [result for result in found if result.verdict]
    missed = [result for result in judged if result.verdict == "missed"]
    misses = "; ".join(
        f"{result.row.name} reaches {result.mean:.2%} in {result.judged_time} instead of {result.target}"
        for result in missed
    )
    unmeasured = [result.row.name for result in found if not result.runs]
    return (
        f"{len(judged) - len(missed)} of {len(judged)} measured recipes with a target reach it"
        f"{f'; {misses}' if missed else ''}.\n"
        f"Not measured yet: {', '.join(unmeasured) or 'none'}."
    )


def _line(result: Result) -> str:
    row = result.row
    start = f"| {row.name} | `{row.command}` |"
    if not result.runs:
        return f"{start} {NOT_MEASURED} | | | | | {result.target} | | | | | | |"
    seeds = ", ".join(f"{run.provenance.seed}: {run.accuracy:.2%}" for run in result.runs)
    run = result.runs[-1]
    whole = _range(result.command_seconds) if result.command_seconds else ""
    machine = f"{run.provenance.device}, torch {run.provenance.libraries['torch'].split('+')[0]}"
    return (
        f"{start} {result.mean:.2%} | {result.interval} | {seeds} | {result.time} | {whole} | {result.target} | "
        f"{result.verdict} | {result.calibration} | {result.variant(VariantName.INT8)} | "
        f"{result.variant(VariantName.FP16)} | {run.n:,} of {run.provenance.data.name} | {machine} |"
    )


def claims(found: Iterable[Result]) -> dict[str, str]:
    """Returns the end of each recipe's docstring: the measured results of its rows."""
    by_recipe: dict[str, list[str]] = {name: [] for name in RECIPES}
    for result in found:
        figures = f"{result.mean:.2%} ({result.interval}), {result.time}" if result.runs else NOT_MEASURED
        seeds = f", {len(result.runs)} seed{'s' * (len(result.runs) > 1)}" if result.runs else ""
        by_recipe[result.row.recipe_name].append(f"    {result.row.name}: {figures}{seeds}")
    return {
        name: "\n".join(["Measured (docs/results.md has the details):", "", *rows]) for name, rows in by_recipe.items()
    }


def with_claim(source: str, claim: str) -> str:
    """Returns the source with the end of its docstring, from "Measured" on, replaced by the claim."""
    head, quotes, rest = source.partition('"""\n\n')
    return re.sub(r"\nMeasured\b.*\Z", "", head, flags=re.DOTALL).rstrip() + f"\n\n{claim}\n{quotes}{rest}"


def files(runs: Sequence[Run]) -> dict[Path, str]:
    """Returns the text of each file to write: the table, and each recipe with its claim."""
    rows = results(runs)
    texts = {TABLE: render(rows)}
    for name, claim in claims(rows).items():
        path = Path(str(RECIPES[name].__file__))
        texts[path] = with_claim(path.read_text(), claim)
    return texts


def add(bundle: Path, command_seconds: float | None = None) -> None:
    run = Run.of(parse_manifest((bundle / "manifest.json").read_text()), command_seconds)
    if not any(run.belongs_to(row) for row in ROWS):
        sys.exit(f"The recipe of {bundle} matches no row of the table. Train it again with the current recipe.")
    with RUNS.open("a") as file:
        print(run.model_dump_json(), file=file)
    write()


def write() -> None:
    for path, text in files(read_runs()).items():
        path.write_text(text)


def run(row: Row, data: Path, artifacts: Path) -> None:
    done = {run.provenance.seed for run in read_runs() if run.belongs_to(row)}
    for seed in sorted(set(range(row.seeds)) - done):
        with tempfile.TemporaryDirectory() as fresh:  # nothing of an earlier run makes this one faster
            folders = ["--artifacts", artifacts, "--runs", f"{fresh}/runs", "--cache", f"{fresh}/cache"]
            command = [sys.executable, "-m", "trainer", *arguments(row, seed, data), *map(str, folders)]
            print(shlex.join(command), file=sys.stderr)
            started = time.perf_counter()
            out = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT).stdout  # noqa: S603
            seconds = time.perf_counter() - started
        print(out, end="")
        add(Path(out.split(": test accuracy")[0]), round(seconds, 1))


def arguments(row: Row, seed: int, data: Path) -> list[str]:
    """Returns the trainer's arguments for one seed of a row."""
    given = [*shlex.split(row.command), "--seed", str(seed)]
    if row.recipe.data.source is not Source.DIGITS:
        given += ["--data", str(data / row.data)]
    if row.recipe.data.limit is not None:
        given += ["--set", f"data.split_seed={seed}"]
    return given


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes docs/results.md.")
    commands = parser.add_subparsers(required=True, dest="command")
    runs = commands.add_parser("run", help="train the missing seeds of these rows (default: all rows of the device)")
    runs.add_argument("rows", nargs="*", choices=[*(row.name for row in ROWS), []], metavar="ROW")
    runs.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    runs.add_argument("--data", type=Path, default=Path("data"))
    runs.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    commands.add_parser("add", help="add existing bundles").add_argument("bundles", type=Path, nargs="+")
    commands.add_parser("write", help="write the table and docstrings, for example after a recipe has changed")
    options = parser.parse_args()
    if options.command == "add":
        for bundle in options.bundles:
            add(bundle)
    elif options.command == "run":
        for row in ROWS:
            if row.name in options.rows or (not options.rows and row.device == options.device):
                run(row, options.data.resolve(), options.artifacts.resolve())
    write()


if __name__ == "__main__":
    main()

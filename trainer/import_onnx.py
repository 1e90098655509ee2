"""Makes a bundle of an ONNX classifier from elsewhere, in the order of the data.

file -> images -> normalisation -> calibrate -> bundle graph -> evaluate -> variants -> report -> bundle
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import JsonValue
from scipy.special import log_softmax

from schemas.bundle import Bundle
from schemas.manifest import Duplicates, Explanation, InputSpec, Reject, Task
from trainer.bundle.assemble import BundleSettings, Exported, assemble
from trainer.bundle.promotion import check_labels
from trainer.bundle.provenance import provenance_of_import
from trainer.bundle.report import write_report
from trainer.bundle.writer import check_writable
from trainer.data.dataset import LabelledImages
from trainer.data.detect import open_source, recipe_for_source
from trainer.data.split import Splits, divide
from trainer.errors import DataError
from trainer.evaluation.calibration import fit_temperature
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.scoring import DataLocation
from trainer.export.graph import Graph
from trainer.export.imported_model import USUAL_NORMALISATIONS, ImportedModel, Normalisation
from trainer.export.onnx import NetworkOutput, spread
from trainer.recipe import InputConfig, Source
from trainer.training.progress import Reporter

_IMAGES_TO_CHOOSE = 512


def import_onnx(
    model: ImportedModel,
    file: Path,
    name: str,
    data: Splits,
    normalisation: Normalisation | None,
    artifacts: Path,
    reporter: Reporter,
    *,
    relabel: bool = False,
) -> Bundle:
    """Writes a bundle of the model, measured on the data; without a normalisation, the usual ones are tried.

    If the model has a version that serves, the new one is a candidate until it is promoted.

    Raises ArtifactsError, ImportedModelError if the model cannot run, and ExportError if the bundle's graph differs
    from the original.
    """
    check_writable(artifacts, name)
    if not relabel:
        check_labels(artifacts / name, data.labels)
    for sentence in data.notes:
        reporter.note(sentence)
    normalisation = normalisation or _likely_normalisation(model, data.validation, reporter)
    temperature = fit_temperature(model.logits(data.validation.images, normalisation), data.validation.labels)
    original = NetworkOutput.of(partial(model.logits, normalisation=normalisation), data.test.images)
    explanation = Explanation(reason="The model was imported from an ONNX file, whose layers are not known.")
    exported = Exported(Graph(model.bundle_graph(normalisation, temperature)), temperature, original, explanation)
    origin: dict[str, JsonValue] = {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "layout": model.layout,
        "normalisation": str(normalisation),
    }

    def write_files(folder: Path, test: Evaluation, reject: Reject | None) -> list[str]:
        return write_report(folder / "report", data, test, reject)

    settings = BundleSettings(name, Task.BINARY if model.outputs == 1 else Task.MULTICLASS)
    source = provenance_of_import(origin, model.parameters, data)
    bundle, _ = assemble(exported, data, settings, source, write_files, artifacts, reporter)
    return bundle


def open_data(location: DataLocation, spec: InputSpec, labels: tuple[str, ...]) -> Splits:
    """Returns images to quantise on (train), to calibrate on, and to test on, for a model with these labels.

    Some classes may have no images. Raises DataError, also for images of another class.
    """
    kind, *others = location.sources(labels)
    if others:
        raise DataError(f"'{location.location}' holds several kinds of data. Choose one, as with --source {kind}.")
    config = recipe_for_source(kind).data.model_copy(
        update={
            "input": InputConfig.model_validate(spec.model_dump()),
            "labels": labels if kind in {Source.CSV, Source.NPZ} else (),
            "validation": 0.3,
            "test": 0.5,
        }
    )
    place = Path(location.location)
    data = open_source(config, place, skip_bad=location.skip_bad, cache=location.cache, known=labels).load()
    other = [label for label in data.labels if label not in labels]
    if other:
        raise DataError(
            f"{data.name} has images of '{other[0]}', which is not among the labels of the model. Labels and class "
            "folders must have the same names."
        )
    index = np.array([labels.index(label) for label in data.labels])
    views = [view for part in divide(data, config) for view in data.take(part)]
    train, validation, test = (LabelledImages(view.images, index[view.labels], view.names) for view in views)
    return Splits(
        name=data.name,
        labels=labels,
        input=data.input,
        content_hash=data.content_hash(),
        duplicates=Duplicates(validation=0, test=0),  # nothing is trained on these images
        notes=data.notes,
        train=train,
        validation=validation,
        test=test,
    )


def _likely_normalisation(model: ImportedModel, images: LabelledImages, reporter: Reporter) -> Normalisation:
    """Returns the usual normalisation with the lowest loss on these images: few graphs show theirs."""
    if model.takes_bytes:
        return Normalisation((0.0,), (1 / 255,))
    few = images.take(spread(len(images), _IMAGES_TO_CHOOSE))
    losses = {}
    for name, normalisation in USUAL_NORMALISATIONS.items():
        if len(normalisation.mean) not in {1, model.shape[2]}:
            continue
        logits = model.logits(few.images, normalisation)
        losses[name] = float(-log_softmax(logits, axis=1)[np.arange(len(few)), few.labels].mean())
        accuracy = (logits.argmax(axis=1) == few.labels).mean()
        reporter.note(f"with {name}: accuracy {accuracy:.1%} on {len(few):,} images")
    best = min(losses, key=lambda name: losses[name])
    reporter.note(f"normalisation: {best} ({USUAL_NORMALISATIONS[best]})")
    return USUAL_NORMALISATIONS[best]

"""What variants are made of, from a trained bundle of colours; and a clock that finds them as fast as a test wants."""

import numpy as np

from schemas.bundle import Bundle
from schemas.image import Pixels
from schemas.manifest import BatchSpeed
from tests.support import colour_images
from trainer.bundle.writer import read_golden
from trainer.data.split import split
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.quantize import Reference, Timed
from trainer.recipe import Recipe


def reference_of(bundle: Bundle) -> Reference:
    """The file's own logits stand in for the network's."""
    manifest = bundle.manifest
    splits = split(colour_images.source().load(), Recipe.model_validate(manifest.provenance.recipe).data)
    content = bundle.read(manifest.fp32)
    model = OnnxModel(content)
    golden, expected = read_golden(bundle.path, manifest.golden, manifest.input)
    return Reference(
        model=content,
        labels=manifest.labels,
        images=np.asarray(splits.train.images),
        validation=evaluate(model, splits.validation, manifest.labels),
        test=evaluate(model, splits.test, manifest.labels),
        logits=model.logits(splits.test.images),
        golden=golden,
        expected=expected,
    )


def times(*ratios: float) -> Timed:
    """Says of any variant that it is so many times as fast as fp32, at batch 1, 2 and so on."""

    def timed(model: OnnxModel, fp32: OnnxModel, images: Pixels) -> tuple[BatchSpeed, ...]:
        assert model is not fp32
        return tuple(
            BatchSpeed(batch=i, images_per_second=100 * ratio, fp32_images_per_second=100)
            for i, ratio in enumerate(ratios, start=1)
        )

    return timed

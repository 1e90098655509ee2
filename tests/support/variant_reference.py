"""The reference of variants from a trained bundle of colours, and speed tests with fixed results."""

import numpy as np

from schemas.bundle import Bundle
from schemas.image import Pixels, decode_image
from schemas.manifest import BatchSpeed
from tests.support import colour_images
from trainer.data.split import split
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.onnx import NetworkOutput
from trainer.export.quantize import Reference, SpeedTest
from trainer.recipe import Recipe


def reference_of(bundle: Bundle) -> Reference:
    """Uses the file's own logits in place of the network's."""
    manifest = bundle.manifest
    data = split(colour_images.source().load(), Recipe.model_validate(manifest.provenance.recipe).data)
    content = bundle.read(manifest.fp32)
    golden = bundle.golden_samples()
    return Reference(
        model=content,
        data=data,
        validation_accuracy=manifest.metrics.validation.accuracy,
        network=NetworkOutput.of(OnnxModel(content).logits, data.test.images),
        golden_images=np.stack([decode_image(sample.image, manifest.input) for sample in golden]),
        golden_probabilities=np.stack([sample.probabilities for sample in golden]),
    )


def times(*ratios: float) -> SpeedTest:
    """Returns a speed test that finds a variant this many times as fast as fp32, at batch size 1, 2 and so on."""

    def test(model: OnnxModel, fp32: OnnxModel, images: Pixels) -> tuple[BatchSpeed, ...]:
        assert model is not fp32
        return tuple(
            BatchSpeed(batch=i, images_per_second=100 * ratio, fp32_images_per_second=100)
            for i, ratio in enumerate(ratios, start=1)
        )

    return test

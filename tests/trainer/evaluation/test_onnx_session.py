import numpy as np

from tests.support.bundles import colour_model
from trainer.evaluation.onnx_session import BATCH, OnnxModel


def test_batches_on_several_cores_are_answered_in_the_order_of_the_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7 * BATCH + 3, 8, 8, 3), dtype=np.uint8)
    model = OnnxModel(colour_model())
    for answered, alone in zip(model.answers(images), model.run(images), strict=True):
        np.testing.assert_allclose(answered, alone, rtol=1e-5)

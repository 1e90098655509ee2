import numpy as np
import pytest

from tests.support.bundles import colour_model
from trainer.evaluation.onnx_session import BATCH, OnnxModel, batches


def test_batches_on_several_cores_are_answered_in_the_order_of_the_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7 * BATCH + 3, 8, 8, 3), dtype=np.uint8)
    model = OnnxModel(colour_model())
    for answered, alone in zip(model.answers(images), model.run(images), strict=True):
        np.testing.assert_allclose(answered, alone, rtol=1e-5)


@pytest.mark.parametrize(("side", "size"), [(8, BATCH), (64, BATCH), (128, 8), (224, 2), (1000, 1)])
def test_a_batch_holds_fewer_images_if_they_are_large(side: int, size: int) -> None:
    images = np.broadcast_to(np.uint8(0), (70, side, side, 3))
    rows = [np.arange(70)[batch] for batch in batches(images)]
    assert len(rows[0]) == size
    assert np.concatenate(rows).tolist() == list(range(70))

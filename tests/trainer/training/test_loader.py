import numpy as np
import pytest
import torch

from tests.support import colour_images
from trainer.data.dataset import LabelledImages
from trainer.training.loader import GatheredImages, ResidentImages, _fits, batches_on

CPU = torch.device("cpu")


def test_gathered_and_resident_images_give_the_same_batches() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 320, 320, 3), np.uint8)  # more than one block
    data = LabelledImages(pixels, np.arange(40)).take(np.arange(39, 5, -1))
    index = torch.tensor([3, 0, 33])
    gathered, resident = GatheredImages(data, CPU).batch(index), ResidentImages.on(CPU, data).batch(index)
    for images, labels in (gathered, resident):
        assert np.array_equal((images.permute(0, 2, 3, 1) * 255).round().byte(), data.images[[3, 0, 33]])
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == data.labels[[3, 0, 33]].tolist()


def test_images_stay_on_the_gpu_if_they_take_at_most_half_of_its_free_memory() -> None:
    images = colour_images.colours(40).train.images
    assert images.nbytes == 40 * 8 * 8 * 3
    assert _fits(images, free_bytes=2 * images.nbytes)
    assert not _fits(images, free_bytes=2 * images.nbytes - 1)


def test_on_a_cpu_nothing_is_copied() -> None:
    data = colour_images.colours(40).train
    found = batches_on(CPU, data)
    assert isinstance(found, GatheredImages)
    assert found.data is data


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no usable CUDA device")
def test_on_a_gpu_both_kinds_give_the_same_batches() -> None:
    device, data, index = torch.device("cuda"), colour_images.colours(40).train, torch.tensor([3, 0, 33])
    gathered, labels = GatheredImages(data, device).batch(index)
    resident, same = ResidentImages.on(device, data).batch(index)
    assert gathered.device.type == "cuda"
    assert torch.equal(gathered, resident)
    assert torch.equal(labels, same)

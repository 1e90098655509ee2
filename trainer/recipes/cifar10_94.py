"""CIFAR-10 with airbench's full network and Muon, made for a GPU.

    python -m trainer train cifar10-94
    python -m trainer train cifar10-94 --preset 96

The presets follow airbench94_muon and airbench96 (Keller Jordan, arXiv 2404.00498), with 8 and 37 epochs. As in the
paper, the exported graph averages test-time views; --set test_views=one turns this off. On a CPU, the run first prints
an estimate of its time.

Two details differ from airbench: the bias of the whitening layer trains in all epochs, not only in the first three, and
biases have no weight decay.

Measured (docs/results.md has the details):

    cifar10-94 on a GPU: 93.77% (93.55% to 93.99% over seeds), 2 s, 3 seeds
    cifar10-94 96 on a GPU: 95.83% (95.42% to 96.20% over test images), 20 s, 1 seed
"""

from trainer.network_config import FastConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    Flip,
    OptimizerConfig,
    OptimizerName,
    Recipe,
    ScheduleConfig,
    ScheduleName,
    Source,
    Views,
)

# A fiftieth of the training images is enough for validation; the network needs the others.
_DATA = DataConfig(source=Source.CIFAR10, validation=0.02)

PRESETS = {
    # The learning rates are airbench's, for a mean loss and logits over 9: 0.24 for filters, 1.66 for the last layer,
    # 106 for biases.
    "default": Recipe(
        name="cifar10-94",
        data=_DATA,
        network=FastConfig(whitening_kernel=2, whitening_stride=1, widths=(64, 256, 256)),
        augment=AugmentConfig(flip=Flip.ALTERNATING, translate=2),
        optimizer=OptimizerConfig(
            name=OptimizerName.MUON, learning_rate=1.66, momentum=0.85, weight_decay=2.4e-3, bias_rate=64
        ),
        schedule=ScheduleConfig(name=ScheduleName.TRIANGULAR, warm_up=0),
        epochs=8,
        batch_size=2000,
        label_smoothing=0.2,
        test_views=Views.SHIFT,
    ),
    "96": Recipe(
        name="cifar10-96",
        data=_DATA,
        network=FastConfig(whitening_kernel=2, whitening_stride=1, widths=(128, 384, 512), residual=True),
        augment=AugmentConfig(flip=Flip.ALTERNATING, translate=4, cutout=12),
        optimizer=OptimizerConfig(
            name=OptimizerName.SGD, learning_rate=1.17, momentum=0.85, weight_decay=1.3e-3, bias_rate=64
        ),
        schedule=ScheduleConfig(name=ScheduleName.TRIANGULAR, warm_up=0.1),
        epochs=37,
        batch_size=1024,
        label_smoothing=0.2,
        ema_decay=0.99,
        test_views=Views.SHIFT,
    ),
}

"""scikit-learn's 8x8 digits with a small plain network, in seconds.

    python -m trainer train digits --seed 0

The split is the same for every seed: 1,258 images for training, 360 for validation and 179 for the test.

Measured (docs/results.md has the details):

    digits: 99.11% (98.73% to 99.49% over seeds), 5 to 7 s, 5 seeds
"""

from trainer.network_config import PlainConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    OptimizerConfig,
    OptimizerName,
    Precision,
    Recipe,
    Source,
)

PRESETS = {
    "default": Recipe(
        name="digits",
        data=DataConfig(source=Source.DIGITS, validation=0.2, test=0.1),
        network=PlainConfig(widths=(32, 64), dense=128, dropout=0.2),
        augment=AugmentConfig(translate=0.7, rotate=8, scale=0.08),
        optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=4e-3, weight_decay=0.02),
        epochs=20,
        batch_size=64,
        label_smoothing=0.05,
        ema_decay=0.95,
        precision=Precision.FP32,  # a network of this size gains nothing from bf16
    )
}

"""Any folder of class-named folders of photos, from weights that were trained on other images.

    python -m trainer train transfer --data flowers
    python -m trainer train transfer --data flowers --network convnext_tiny
    python -m trainer train transfer --data flowers --weights artifacts/cifar10

The first two start from the weights that torchvision publishes, which it downloads; what they reach has not been
measured, nor whether the download works. The third starts from a bundle trained here, and takes its network.

Measured, as docs/results.md says in full:

    transfer: not measured
"""

from schemas.manifest import InputSpec
from trainer.models.transfer import ResNet18Config
from trainer.recipe import (
    PRETRAINED,
    AugmentConfig,
    DataConfig,
    Flip,
    OptimizerConfig,
    OptimizerName,
    Recipe,
    Source,
    TransferConfig,
)

PRESETS = {
    "default": Recipe(
        name="transfer",
        data=DataConfig(
            source=Source.FOLDER, validation=0.2, test=0.1, input=InputSpec(height=128, width=128, channels=3)
        ),
        network=ResNet18Config(),
        transfer=TransferConfig(weights=PRETRAINED, head_epochs=3, body_rate=0.1),
        augment=AugmentConfig(flip=Flip.RANDOM, crop=0.3, reflect=True, colour=0.2),
        optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=1e-3, weight_decay=0.05),
        epochs=15,
        batch_size=64,
        label_smoothing=0.1,
        ema_decay=0.99,
    ),
}

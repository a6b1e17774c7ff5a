"""The classifier of noisy CIFAR-10 images of score-SDE, WRN-28-10 (arXiv 2011.13456, Appendix I).

    python main.py --config=configs/cifar10_classifier.py --mode=train --config.data.dir=DIR

Time: one GPU, a day (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.classifier import classifier


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = classifier(center=0.5)
    config.data.update(dict(name="cifar10", dir=None, flip=True))
    config.parameterization.input_scale = 2.0
    config.model.update(dict(multiplier=10, blocks_per_group=4))
    return variant(config, name, base=8, multiplier=1, blocks_per_group=1)

"""NCSN on CIFAR-10 as published: 30,117,635 parameters, published FID 25.32 (arXiv 1907.05600, Table 1). One GPU, days.

python main.py --config=configs/cifar10_ncsn.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsn


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ncsn()
    config.data.update(dict(name="cifar10", dir=None, flip=True))
    return variant(config, name, width=8)

"""NCSN on MNIST as published: 7,638,657 parameters (arXiv 1907.05600). One GPU, hours.

python main.py --config=configs/mnist_ncsn.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsn


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ncsn()
    config.data.update(dict(name="mnist", dir=None))
    config.model.width = 64
    return variant(config, name, width=8)

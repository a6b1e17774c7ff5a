"""NCSN on MNIST as published: 7,638,657 parameters (arXiv 1907.05600).

    python main.py --config=configs/mnist_ncsn.py --mode=train --config.data.dir=DIR

Time: one GPU, hours (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsn


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsn()
    config.data.update(dict(name="mnist", dir=None))
    config.model.width = 64
    return variant(config, name, width=3)

"""NCSN on CIFAR-10 as published: 30,117,635 parameters (arXiv 1907.05600, Table 1).

    python main.py --config=configs/cifar10_ncsn.py --mode=train --config.data.dir=DIR

Expected: published FID 25.32; not reproduced here.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsn


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsn()
    config.data.update(dict(name="cifar10", dir=None, flip=True))
    return variant(config, name, width=3)

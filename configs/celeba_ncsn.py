"""NCSN on CelebA at 32 x 32 pixels as published: 30,117,635 parameters (arXiv 1907.05600).

    python main.py --config=configs/celeba_ncsn.py --mode=train --config.data.dir=DIR

Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsn


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsn()
    config.data.update(dict(name="celeb_a", dir=None, image_size=32, flip=True))  # 140 x 140 pixels, resized
    return variant(config, name, width=3)

"""NCSN on CelebA at 32 pixels as published: 30,117,635 parameters (arXiv 1907.05600). One GPU, days.

python main.py --config=configs/celeba_ncsn.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsn


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ncsn()
    config.data.update(dict(name="celeb_a", dir=None, image_size=32, flip=True))  # crop of 140, then 32 pixels
    return variant(config, name, width=8)

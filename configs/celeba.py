"""NCSNv2 on CelebA at 64 pixels as published: 29,694,083 parameters, published FID 10.23 (arXiv 2006.09011). One GPU,
days.

python main.py --config=configs/celeba.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsnv2


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ncsnv2(sigma_max=90.0, num_levels=500, step_lr=3.3e-6, num_steps=5)
    config.data.update(dict(name="celeb_a", dir=None, image_size=64))  # crop of 140, then 64 pixels
    config.train.steps = 210_000
    return variant(config, name, width=8)

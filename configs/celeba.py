"""NCSNv2 on CelebA at 64 x 64 pixels as published: 29,694,083 parameters (arXiv 2006.09011).

    python main.py --config=configs/celeba.py --mode=train --config.data.dir=DIR

Expected: published FID 10.23; not reproduced here.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsnv2


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsnv2(sigma_max=90.0, num_levels=500, step_lr=3.3e-6, num_steps=5)
    config.data.update(dict(name="celeb_a", dir=None, image_size=64))  # 140 x 140 pixels, resized
    config.train.steps = 210_000
    return variant(config, name, width=3)

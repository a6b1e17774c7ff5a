"""NCSN on CelebA at 64 pixels in score-SDE's release: 500 levels up to sigma 90 (techniques 1, 2, 4).

The techniques are those of NCSNv2 (arXiv 2006.09011).

    python main.py --config=configs/ve/ncsn/celeba_124.py --mode=train --config.data.dir=DIR

Expected: no published FID; not run.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.score_sde import refinenet


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    data = dict(name="celeb_a", dir=None, image_size=64, flip=True)  # 140 x 140 pixels, resized
    config = refinenet(data, "ncsn", sigma_max=90.0, num_levels=500, snr=0.128, num_steps=5, ema_decay=0.0)
    return variant(config, name, width=3)

"""NCSNv2 on CelebA at 64 pixels in score-SDE's release: 500 levels up to sigma 90.

    python main.py --config=configs/ve/ncsnv2/celeba.py --mode=train --config.data.dir=DIR

Expected: no published FID; not run.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.score_sde import refinenet


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    data = dict(name="celeb_a", dir=None, image_size=64, flip=True)  # 140 x 140 pixels, resized
    config = refinenet(data, "ncsnv2", sigma_max=90.0, num_levels=500, snr=0.128, num_steps=5, ema_decay=0.999)
    return variant(config, name, width=3)

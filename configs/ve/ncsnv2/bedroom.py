"""NCSNv2 on LSUN bedrooms at 128 pixels in score-SDE's release: 1086 levels up to sigma 190.

The released file misspells `training.continuous`, so the default of continuous times remains, for which its network
cannot run. This config has the discrete levels that the file intends.

    python main.py --config=configs/ve/ncsnv2/bedroom.py --mode=train --config.data.dir=FOLDER

Expected: no published FID; not run.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.score_sde import folder, large, refinenet


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    levels = dict(sigma_max=190.0, num_levels=1086, snr=0.095, num_steps=3)
    config = large(refinenet(folder(128), "ncsnv2_deeper", **levels, ema_decay=0.9999), batch_size=128)
    return variant(config, name, width=3)

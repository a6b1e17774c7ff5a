"""NCSN on CIFAR-10 in score-SDE's release: 10 levels up to sigma 1.

    python main.py --config=configs/ve/ncsn/cifar10.py --mode=train --config.data.dir=DIR

Expected: no published FID; not run.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.score_sde import CIFAR10, refinenet


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = refinenet(CIFAR10, "ncsn", sigma_max=1.0, num_levels=10, snr=0.316, num_steps=100, ema_decay=0.0)
    return variant(config, name, width=3)

"""DDPM on CIFAR-10, VE with 1000 noise levels: 35,218,947 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/cifar10_ddpm.py --mode=train --config.data.dir=DIR

Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(ve(CIFAR10, dict(name="ddpm"), num_levels=1000), name)

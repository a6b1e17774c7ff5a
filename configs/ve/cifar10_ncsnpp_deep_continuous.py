"""NCSN++ (deep) on CIFAR-10, continuous VE: 107,586,947 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/cifar10_ncsnpp_deep_continuous.py --mode=train --config.data.dir=DIR

Expected: published FID 2.20; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, DEEP, deep, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(deep(ve(CIFAR10, dict(name="ncsnpp") | DEEP)), name)

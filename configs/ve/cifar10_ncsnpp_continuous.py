"""NCSN++ on CIFAR-10, continuous VE: 62,758,787 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/cifar10_ncsnpp_continuous.py --mode=train --config.data.dir=DIR

Expected: published FID 2.38; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(ve(CIFAR10, dict(name="ncsnpp")), name)

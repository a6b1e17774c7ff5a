"""NCSN++ on CIFAR-10, VE with 1000 noise levels: 62,693,251 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/cifar10_ncsnpp.py --mode=train --config.data.dir=DIR

Expected: published FID 2.45; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(ve(CIFAR10, dict(name="ncsnpp", embedding="positional"), num_levels=1000), name)

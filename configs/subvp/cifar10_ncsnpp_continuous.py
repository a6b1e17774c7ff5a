"""NCSN++ on CIFAR-10, continuous sub-VP: 62,693,251 parameters (arXiv 2011.13456).

    python main.py --config=configs/subvp/cifar10_ncsnpp_continuous.py --mode=train --config.data.dir=DIR

Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(vp(CIFAR10, dict(name="ncsnpp", embedding="positional"), method="sub-VP"), name)

"""NCSN++ (deep) on CIFAR-10, continuous VP: 107,521,411 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/cifar10_ncsnpp_deep_continuous.py --mode=train --config.data.dir=DIR

Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, DEEP, deep, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(deep(vp(CIFAR10, dict(name="ncsnpp", embedding="positional") | DEEP)), name)

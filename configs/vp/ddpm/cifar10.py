"""DDPM on CIFAR-10, 1000 noise levels: 35,218,947 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/ddpm/cifar10.py --mode=train --config.data.dir=DIR

Expected: published FID 3.24 and 3.28 bits/dim; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(ddpm(CIFAR10, dict(name="ddpm")), name)

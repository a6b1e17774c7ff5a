"""DDPM++ (deep) on CIFAR-10, continuous VP: 106,632,579 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/cifar10_ddpmpp_deep_continuous.py --mode=train --config.data.dir=DIR

Expected: published FID 2.41 and 3.13 bits/dim; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, DEEP, deep, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(deep(vp(CIFAR10, dict(name="ddpmpp") | DEEP)), name)

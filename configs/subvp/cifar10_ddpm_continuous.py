"""DDPM on CIFAR-10, continuous sub-VP: 35,218,947 parameters (arXiv 2011.13456).

    python main.py --config=configs/subvp/cifar10_ddpm_continuous.py --mode=train --config.data.dir=DIR

Expected: published FID 3.56 by the probability flow ODE and 3.05 bits/dim; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(vp(CIFAR10, dict(name="ddpm"), method="sub-VP"), name)

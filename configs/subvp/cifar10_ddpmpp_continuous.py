"""DDPM++ on CIFAR-10, continuous sub-VP: 61,804,419 parameters (arXiv 2011.13456).

    python main.py --config=configs/subvp/cifar10_ddpmpp_continuous.py --mode=train --config.data.dir=DIR

Expected: published FID 2.61 and 3.02 bits/dim; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(vp(CIFAR10, dict(name="ddpmpp"), method="sub-VP"), name)

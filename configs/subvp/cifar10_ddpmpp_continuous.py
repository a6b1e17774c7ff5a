"""DDPM++ on CIFAR-10, continuous sub-VP: 61,804,419 parameters, published FID 2.61, 3.02 bits/dim (arXiv 2011.13456).
One GPU, weeks.

python main.py --config=configs/subvp/cifar10_ddpmpp_continuous.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(vp(CIFAR10, dict(name="ddpmpp"), method="sub-VP"), name)

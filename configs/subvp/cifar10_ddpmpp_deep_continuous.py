"""DDPM++ (deep) on CIFAR-10, continuous sub-VP: 106,632,579 parameters, published FID 2.41, 2.99 bits/dim
(arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/subvp/cifar10_ddpmpp_deep_continuous.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, DEEP, deep, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(deep(vp(CIFAR10, dict(name="ddpmpp") | DEEP, method="sub-VP")), name)

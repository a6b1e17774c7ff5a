"""DDPM on CIFAR-10, continuous sub-VP: 35,218,947 parameters, published FID 3.56 by the probability flow, 3.05 bits/dim
(arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/subvp/cifar10_ddpm_continuous.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(vp(CIFAR10, dict(name="ddpm"), method="sub-VP"), name)

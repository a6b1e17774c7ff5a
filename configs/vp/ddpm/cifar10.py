"""DDPM on CIFAR-10 at its 1000 levels: 35,218,947 parameters, published FID 3.24, 3.28 bits/dim (arXiv 2011.13456). One
GPU, weeks.

python main.py --config=configs/vp/ddpm/cifar10.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(ddpm(CIFAR10, dict(name="ddpm")), name)

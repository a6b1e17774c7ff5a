"""DDPM on CIFAR-10, 1000 levels of VE: 35,218,947 parameters (arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/ve/cifar10_ddpm.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(ve(CIFAR10, dict(name="ddpm"), num_levels=1000), name)

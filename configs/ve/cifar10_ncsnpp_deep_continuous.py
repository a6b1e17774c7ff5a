"""NCSN++ (deep) on CIFAR-10, continuous VE: 107,586,947 parameters, published FID 2.20 (arXiv 2011.13456). One GPU,
weeks.

python main.py --config=configs/ve/cifar10_ncsnpp_deep_continuous.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, DEEP, deep, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(deep(ve(CIFAR10, dict(name="ncsnpp") | DEEP)), name)

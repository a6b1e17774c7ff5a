"""NCSN++ on CIFAR-10, continuous VE: 62,758,787 parameters, published FID 2.38 (arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/ve/cifar10_ncsnpp_continuous.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(ve(CIFAR10, dict(name="ncsnpp")), name)

"""NCSN++ on CIFAR-10, continuous sub-VP: 62,693,251 parameters (arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/subvp/cifar10_ncsnpp_continuous.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(vp(CIFAR10, dict(name="ncsnpp", embedding="positional"), method="sub-VP"), name)

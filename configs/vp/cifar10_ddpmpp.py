"""DDPM++ on CIFAR-10 at the levels of DDPM: 61,804,419 parameters, published FID 2.78 (arXiv 2011.13456). One GPU,
weeks.

python main.py --config=configs/vp/cifar10_ddpmpp.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return tiny(ddpm(CIFAR10, dict(name="ddpmpp")), name)

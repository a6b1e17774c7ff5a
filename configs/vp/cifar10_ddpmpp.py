"""DDPM++ on CIFAR-10, 1000 noise levels of DDPM: 61,804,419 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/cifar10_ddpmpp.py --mode=train --config.data.dir=DIR

Expected: published FID 2.78; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(ddpm(CIFAR10, dict(name="ddpmpp")), name)

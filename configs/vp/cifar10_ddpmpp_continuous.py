"""DDPM++ on CIFAR-10, continuous VP: 61,804,419 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/cifar10_ddpmpp_continuous.py --mode=train --config.data.dir=DIR

Expected: published FID 2.55 and 3.16 bits/dim; not reproduced here.
Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, tiny, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(vp(CIFAR10, dict(name="ddpmpp")), name)

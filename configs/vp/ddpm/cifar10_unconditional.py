"""DDPM on CIFAR-10 that is not told the level: 32,329,347 parameters (arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/vp/ddpm/cifar10_unconditional.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ddpm(CIFAR10, dict(name="ddpm", embedding="none"))
    config.parameterization.condition = ConfigDict(dict(name="none"))
    return tiny(config, name)

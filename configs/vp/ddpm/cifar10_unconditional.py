"""DDPM on CIFAR-10 without noise conditioning: 32,329,347 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/ddpm/cifar10_unconditional.py --mode=train --config.data.dir=DIR

Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ddpm(CIFAR10, dict(name="ddpm", embedding="none"))
    config.parameterization.condition = ConfigDict(dict(name="none"))
    return tiny(config, name)

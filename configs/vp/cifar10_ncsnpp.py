"""NCSN++ on CIFAR-10 at the levels of DDPM: 62,693,251 parameters (arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/vp/cifar10_ncsnpp.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ddpm(CIFAR10, dict(name="ncsnpp", embedding="positional"))
    config.sampler.predictor = ConfigDict(dict(name="reverse_diffusion"))
    return tiny(config, name)

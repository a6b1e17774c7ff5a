"""NCSN++ on CIFAR-10, 1000 noise levels of DDPM: 62,693,251 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/cifar10_ncsnpp.py --mode=train --config.data.dir=DIR

Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import CIFAR10, ddpm, tiny


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ddpm(CIFAR10, dict(name="ncsnpp", embedding="positional"))
    config.sampler.predictor = ConfigDict(dict(name="reverse_diffusion"))
    return tiny(config, name)

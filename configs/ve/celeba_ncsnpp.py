"""NCSN++ on CelebA at 64 pixels, 1000 levels of VE: 62,693,251 parameters (arXiv 2011.13456). One GPU, weeks.

python main.py --config=configs/ve/celeba_ncsnpp.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs.families.score_sde import tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    data = dict(name="celeb_a", dir=None, image_size=64, flip=True)  # crop of 140, then 64 pixels
    model = dict(name="ncsnpp", embedding="positional")
    return tiny(ve(data, model, sigma_max=90.0, num_levels=1000, snr=0.17), name)

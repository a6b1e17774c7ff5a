"""NCSN++ on CelebA at 64 x 64 pixels, VE with 1000 noise levels: 62,693,251 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/celeba_ncsnpp.py --mode=train --config.data.dir=DIR

Time: one GPU, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    data = dict(name="celeb_a", dir=None, image_size=64, flip=True)  # 140 x 140 pixels, resized
    model = dict(name="ncsnpp", embedding="positional")
    return tiny(ve(data, model, sigma_max=90.0, num_levels=1000, snr=0.17), name)

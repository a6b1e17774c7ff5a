"""NCSN++ on FFHQ at 256 x 256 pixels, continuous VE: 65,574,421 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/ffhq_256_ncsnpp_continuous.py --mode=train --config.data.dir=FOLDER

Time: several GPUs, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import NCSNPP_256, folder, large, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return tiny(large(ve(folder(256), NCSNPP_256, sigma_max=348.0, num_steps=2000, snr=0.075)), name)

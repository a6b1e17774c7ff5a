"""NCSN++ on CelebA-HQ at 1024 x 1024 pixels, continuous VE: 105,785,880 parameters (arXiv 2011.13456).

    python main.py --config=configs/ve/celebahq_ncsnpp_continuous.py --mode=train --config.data.dir=FOLDER

Time: several GPUs, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import NCSNPP_1024, folder, large, tiny, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = large(ve(folder(1024), NCSNPP_1024, sigma_max=1348.0, num_steps=2000, snr=0.15), batch_size=8)
    config.train.ema_decay = 0.9999
    return tiny(config, name)

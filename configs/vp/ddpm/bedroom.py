"""DDPM on LSUN bedroom at 256 x 256 pixels: 111,569,923 parameters (arXiv 2011.13456).

    python main.py --config=configs/vp/ddpm/bedroom.py --mode=train --config.data.dir=FOLDER

Time: several GPUs, weeks (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import DDPM_256, ddpm, folder, large, tiny


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = large(ddpm(folder(256), DDPM_256))
    config.optimizer.learning_rate = 2e-5
    return tiny(config, name)

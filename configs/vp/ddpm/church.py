"""DDPM on LSUN church at 256 pixels: 111,569,923 parameters (arXiv 2011.13456). Several GPUs, weeks.

python main.py --config=configs/vp/ddpm/church.py --mode=train --config.data.dir=FOLDER
"""

from ml_collections import ConfigDict

from configs.families.score_sde import DDPM_256, ddpm, folder, large, tiny


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = large(ddpm(folder(256), DDPM_256))
    config.optimizer.learning_rate = 2e-5
    return tiny(config, name)

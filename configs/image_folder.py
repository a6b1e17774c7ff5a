"""NCSNv2 on a folder of your own images at 64 pixels; noise ladder and Langevin step are chosen from the images. One
GPU.

python main.py --config=configs/image_folder.py --mode=train --config.data.dir=FOLDER [--config.data.image_size=32]
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsnv2


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = ncsnv2(sigma_max="auto", num_levels="auto", step_lr="auto", num_steps=5)
    config.data.update(dict(name="image_folder", dir=None, image_size=64))
    config.train.batch_size = 64
    config = variant(config, name, width=8)
    if name == "debug":
        config.data.image_size = 16
        config.loss.times.num_levels = "auto"
    return config

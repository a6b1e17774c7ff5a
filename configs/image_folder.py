"""NCSNv2 on a folder or zip file of your images, 64 x 64 pixels (arXiv 2006.09011).

    python main.py --config=configs/image_folder.py --mode=train --config.data.dir=FOLDER [--config.data.image_size=32]

The largest noise level, the number of levels and the Langevin step size are computed from the images by techniques 1, 2
and 4 of the paper.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsnv2


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsnv2(sigma_max="auto", num_levels="auto", step_lr="auto", num_steps=5)
    config.data.update(dict(name="image_folder", dir=None, image_size=64))
    config.train.batch_size = 64
    config = variant(config, name, width=3)
    if name == "debug":
        config.loss.times.num_levels = "auto"
    return config

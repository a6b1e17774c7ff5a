"""NCSNv2 on FFHQ at 256 x 256 pixels as published: 94,132,611 parameters (arXiv 2006.09011, Appendix B).

    python main.py --config=configs/ffhq_ncsnv2.py --mode=train --config.data.dir=FOLDER

Time: several GPUs, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsnv2


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsnv2(sigma_max=348.0, num_levels=2311, step_lr=9e-7, num_steps=3)
    config.data.update(dict(name="image_folder", dir=None, image_size=256))
    config.model.name = "ncsnv2_deepest"
    config.optimizer.eps = 1e-3
    config.train.update(dict(steps=80_000, batch_size=32))
    config.sampler.batch_size = 16
    return variant(config, name, width=3)

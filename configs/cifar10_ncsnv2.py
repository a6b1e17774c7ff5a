"""NCSNv2 on CIFAR-10 as published: 29,694,083 parameters (arXiv 2006.09011, Table 2).

    python main.py --config=configs/cifar10_ncsnv2.py --mode=train --config.data.dir=DIR

Expected: published FID 10.87; not reproduced here.
Time: one GPU, days (estimate, not run).
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.ncsn import ncsnv2


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = ncsnv2(sigma_max=50.0, num_levels=232, step_lr=6.2e-6, num_steps=5)
    config.data.update(dict(name="cifar10", dir=None))
    return variant(config, name, width=3)

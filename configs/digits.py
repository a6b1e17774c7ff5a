"""NCSN on scikit-learn's 8 x 8 handwritten digits: the first run, within 4 minutes on 2 CPU cores.

python main.py --config=configs/digits.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = small(num_levels=10, sigma_min=0.03, center=0.3, sigma_data=0.4)
    config.data.update(dict(name="digits", split="train"))
    config.model.update(dict(widths=(64,), patch=2, num_blocks=3, bottleneck=128))
    config.train.preview_every = 1000
    return variant(config, name, widths=(8,), num_blocks=1, bottleneck=8)

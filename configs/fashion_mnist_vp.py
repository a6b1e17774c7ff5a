"""VP SDE in continuous time on Fashion-MNIST, 28 x 28 pixels, with an ancestral sampler.

    apt-get install dataset-fashion-mnist  # or --config.data.dir=DIR with idx files or prepared data
    python main.py --config=configs/fashion_mnist_vp.py --mode=train

The network is the small U-Net of fashion_mnist.py, with EDM preconditioning, conditioned on time.
Time: half an hour on 2 CPU cores (estimate, not timed).
Expected: `benchmarks/sampler_table.py` gives a Fréchet ratio of 2.71 in classifier features at 100 ancestral steps.
"""

from ml_collections import ConfigDict

from configs.families import small_vp, variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = small_vp(center=-0.43, sigma_data=0.7)
    config.data.update(dict(name="fashion_mnist", dir=None, split="train", flip=False))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=1, bottleneck=256))
    config.train.update(dict(steps=4000, batch_size=64, ema_decay=0.999, preview_every=2000))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

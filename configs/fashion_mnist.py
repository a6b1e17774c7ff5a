"""NCSNv2 on Fashion-MNIST, 28 pixels, 60,000 images: half an hour on 2 CPU cores.

apt-get install dataset-fashion-mnist, or --config.data.dir=DIR with the idx files or prepared data.
python main.py --config=configs/fashion_mnist.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    # Techniques 1, 2 and 4 of NCSNv2: the largest distance between two images, ladders that overlap in 784 dimensions,
    # and the step that keeps the noise at its level. Technique 3: the network is told nothing, so that it takes the
    # noise that annealed Langevin dynamics leaves in excess for noise; one that is told the level draws it as texture.
    config = small(num_levels=94, sigma_min=0.02, sigma_max=20.0, center=0.29, sigma_data=0.35)
    config.parameterization.condition = ConfigDict(dict(name="none"))
    config.data.update(dict(name="fashion_mnist", dir=None, split="train", flip=False))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=1, bottleneck=256))
    config.train.update(dict(steps=5000, batch_size=64, ema_decay=0.999, preview_every=2500))
    config.sampler.prior = "gaussian"
    config.sampler.corrector.update(dict(step_size=0.1065, num_steps=5))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

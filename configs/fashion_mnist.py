"""NCSNv2 on Fashion-MNIST, 28 pixels, 60,000 images: half an hour on 2 CPU cores.

apt-get install dataset-fashion-mnist, or --config.data.dir=DIR with the idx files or prepared data.
python main.py --config=configs/fashion_mnist.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    # Noise and ladder by techniques 1 and 2 of NCSNv2: as large as the largest distance between two images, and levels
    # that overlap in 784 dimensions. By technique 3 the network is told nothing: one that is told the level takes the
    # noise that annealed Langevin dynamics leaves in excess for texture.
    config = small(num_levels=94, sigma_min=0.02, sigma_max=20.0, center=0.29, sigma_data=0.35)
    config.parameterization.condition = ConfigDict(dict(name="none"))
    config.data.update(dict(name="fashion_mnist", dir=None, split="train", flip=False))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=1, bottleneck=256))
    config.train.update(dict(steps=5000, batch_size=64, ema_decay=0.999, preview_every=2500))
    # Ancestral steps keep the noise at its level exactly; annealed Langevin dynamics draws paler clothes.
    config.sampler.prior = "gaussian"
    config.sampler.times = ConfigDict(dict(name="uniform", num_steps=400))
    config.sampler.predictor = ConfigDict(dict(name="ancestral"))
    config.sampler.corrector = ConfigDict(dict(name="none"))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

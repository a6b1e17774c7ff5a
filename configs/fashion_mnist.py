"""Noise levels of NCSNv2 on Fashion-MNIST, 28 x 28 pixels, with an ancestral sampler.

    apt-get install dataset-fashion-mnist  # or --config.data.dir=DIR with idx files or prepared data
    python main.py --config=configs/fashion_mnist.py --mode=train

The network is a small unconditional U-Net with EDM preconditioning.
Time: 33 min on 2 cores of an AMD EPYC, under other load (measured); 100 samples of 401 network evaluations included.
Expected: most samples are recognizable clothes; some dark ones are grainy.
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    # Techniques 1 and 2 of NCSNv2 set the largest noise level, the largest distance between two images, and the number
    # of levels, which overlap in 784 dimensions. By technique 3 the network is unconditional.
    config = small(num_levels=94, sigma_min=0.02, sigma_max=20.0, center=0.29, sigma_data=0.35)
    config.parameterization.condition = ConfigDict(dict(name="none"))
    config.data.update(dict(name="fashion_mnist", dir=None, split="train", flip=False))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=1, bottleneck=256))
    config.train.update(dict(steps=5000, batch_size=64, ema_decay=0.999, preview_every=2500))
    # Ancestral sampling, since the images of annealed Langevin dynamics were paler.
    config.sampler.prior = "gaussian"
    config.sampler.times = ConfigDict(dict(name="uniform", num_steps=400))
    config.sampler.predictor = ConfigDict(dict(name="ancestral"))
    config.sampler.corrector = ConfigDict(dict(name="none"))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

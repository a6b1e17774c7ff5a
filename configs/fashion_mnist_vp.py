"""Score-SDE on Fashion-MNIST, 28 pixels, 60,000 images: VP, continuous time, on a CPU.

apt-get install dataset-fashion-mnist, or --config.data.dir=DIR with the idx files or prepared data.
python main.py --config=configs/fashion_mnist_vp.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = small(num_levels=94, sigma_min=0.02, sigma_max=20.0, center=-0.43, sigma_data=0.7)
    config.sde = ConfigDict(dict(name="vp"))
    config.parameterization.condition = ConfigDict(dict(name="scaled_time"))
    config.loss.times = ConfigDict(dict(name="uniform"))
    config.data.update(dict(name="fashion_mnist", dir=None, split="train", flip=False, value_range=(-1.0, 1.0)))
    config.model.update(dict(widths=(64, 96), patch=2, num_blocks=1, bottleneck=256))
    config.train.update(dict(steps=4000, batch_size=64, ema_decay=0.999, preview_every=2000))
    config.sampler.prior = "gaussian"
    config.sampler.times = ConfigDict(dict(name="uniform", num_steps=200, t_end=1e-3))
    config.sampler.predictor = ConfigDict(dict(name="ancestral"))
    config.sampler.corrector = ConfigDict(dict(name="none"))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

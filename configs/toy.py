"""NCSN on points in the plane: a minute on a CPU, and a plot of samples and score field.

python main.py --config=configs/toy.py --mode=train [--config.data.distribution=two_moons]
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = small(num_levels=16, sigma_min=0.02, sigma_max=4.0, center=0.0, sigma_data=1.2)  # the data span [-2, 2]
    config.data = dict(name="points", distribution="checkerboard")
    config.model = dict(name="mlp", width=128, depth=3)
    config.parameterization.condition = dict(name="log_sigma")
    config.train.update(dict(steps=10_000, batch_size=512, log_every=500))
    config.checkpoint.every = 5000
    config.sampler.update(dict(prior="gaussian", num_images=4096, batch_size=4096))
    config.sampler.corrector.num_steps = 40
    return variant(config, name, width=16)

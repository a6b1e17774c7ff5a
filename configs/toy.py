"""Noise levels and annealed Langevin sampler of NCSN on two-dimensional points, with a multilayer perceptron.

    python main.py --config=configs/toy.py --mode=train [--config.data.distribution=two_moons]

Time: 46 s on 2 cores of an AMD EPYC (measured).
Expected: a plot of the samples and the score field.
"""

from ml_collections import ConfigDict

from configs.families import small, variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = small(num_levels=16, sigma_min=0.02, sigma_max=4.0, center=0.0, sigma_data=1.2)  # the data span [-2, 2]
    config.data = dict(name="points", distribution="checkerboard")
    config.model = dict(name="mlp", width=128, depth=3)
    config.parameterization.condition = dict(name="log_sigma")
    config.train.update(dict(steps=10_000, batch_size=512, log_every=500))
    config.checkpoint.every = 5000
    config.sampler.update(dict(prior="gaussian", num_images=4096, batch_size=4096))
    config.sampler.corrector.num_steps = 40
    return variant(config, name, width=16)

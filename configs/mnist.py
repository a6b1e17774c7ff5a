"""Noise levels of NCSNv2 on MNIST, 28 x 28 pixels: the network and sampler of fashion_mnist.py.

    python main.py --config=configs/mnist.py --mode=train --config.data.dir=DIR

Time: half an hour on 2 CPU cores (estimate, not run).
"""

from ml_collections import ConfigDict

from configs import fashion_mnist


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = fashion_mnist.get_config(name)
    config.data.name = "mnist"
    config.parameterization.update(dict(center=0.13, sigma_data=0.31))
    return config

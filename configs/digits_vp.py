"""VP SDE in continuous time on scikit-learn's 8 x 8 digits: a small DDPM++ with EDM preconditioning.

    python main.py --config=configs/digits_vp.py --mode=train

Time: minutes on 2 CPU cores (not timed).
Expected: 1.935 bits/dim on the 359 test digits (exact divergence, rtol = atol = 1e-3).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import DIGITS, digits, vp


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return digits(vp(DIGITS, dict(name="ddpmpp")), name, center=-0.4, sigma_data=0.8)

"""VE SDE in continuous time on scikit-learn's 8 x 8 digits: a small NCSN++ with EDM preconditioning.

    python main.py --config=configs/digits_ve.py --mode=train

Time: minutes on 2 CPU cores (not timed).
Expected: 1.891 bits/dim on the 359 test digits (exact divergence, rtol = atol = 1e-3).
"""

from ml_collections import ConfigDict

from configs.families.score_sde import DIGITS, digits, ve


def get_config(name: str = "") -> ConfigDict:
    """Return the config; variant "debug" is a tiny model that trains for 4 steps."""
    return digits(ve(DIGITS, dict(name="ncsnpp"), sigma_max=5.0), name, center=0.3, sigma_data=0.4)

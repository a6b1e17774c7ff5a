"""Score-SDE on scikit-learn's 8 x 8 handwritten digits: a small NCSN++, variance exploding; minutes on 2 CPU cores.

python main.py --config=configs/digits_ve.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families.score_sde import DIGITS, digits, ve


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return digits(ve(DIGITS, dict(name="ncsnpp"), sigma_max=5.0), name, center=0.3, sigma_data=0.4)

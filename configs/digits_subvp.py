"""Score-SDE on scikit-learn's 8 x 8 handwritten digits: a small DDPM++, sub-variance preserving; minutes on 2
CPU cores.

python main.py --config=configs/digits_subvp.py --mode=train
"""

from ml_collections import ConfigDict

from configs.families.score_sde import DIGITS, digits, vp


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    return digits(vp(DIGITS, dict(name="ddpmpp"), method="sub-VP"), name, center=-0.4, sigma_data=0.8)

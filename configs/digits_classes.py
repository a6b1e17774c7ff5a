"""Class-conditional NCSN on the 8 x 8 digits, with classifier-free guidance (arXiv 2207.12598): minutes on 2 CPU cores.

python main.py --config=configs/digits_classes.py --mode=train
python main.py --config=configs/digits_classes.py --mode=sample --config.task.name=class_conditional

--config.task.scale is the guidance scale (1 for the distribution given the class), --config.task.label the class (all
in turn by default).
"""

from ml_collections import ConfigDict

from configs import digits


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = digits.get_config(name)
    config.model.num_classes = 10
    config.train.label_dropout = 0.1
    return config

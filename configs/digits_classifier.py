"""A classifier of noisy digits, which makes class-conditional digits of configs/digits.py: 2 minutes on 2 CPU cores.

python main.py --config=configs/digits_classifier.py --mode=train

--mode=sample of the other run then takes --config.task.name=class_conditional and
--config.task.classifier=runs/digits_classifier. A run on other noise needs a classifier of its own, trained with the
section `sde` of that run.
"""

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.classifier import classifier


def get_config(name: str = "") -> ConfigDict:
    """The experiment, or with "debug" a few seconds of it."""
    config = classifier(center=0.3)
    config.data.update(dict(name="digits", split="train"))
    config.sde.update(dict(sigma_min=0.03, sigma_max=1.0))
    config.parameterization = dict(name="edm", center=0.3, sigma_data=0.4, condition=dict(name="log_sigma"))
    config.model.update(dict(base=32, multiplier=1, blocks_per_group=1, embedding="sinusoidal"))
    config.optimizer.learning_rate = 2e-3
    config.train.update(dict(steps=2000, ema_decay=0.998))
    config.checkpoint.every = 1000
    return variant(config, name, base=8)

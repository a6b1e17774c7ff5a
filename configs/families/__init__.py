"""What the configs of one method share; a config file says only what differs."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference


def levels(number: int | str) -> FieldReference:
    """A number of ladder levels that several sections share: set one of them and all follow."""
    return FieldReference(number, field_type=object)


def small(num_levels: int, sigma_min: float, sigma_max: float, center: float, sigma_data: float) -> ConfigDict:
    """NCSN with a small U-Net that learns in minutes on a CPU.

    center and sigma_data: mean and standard deviation of the pixels, with which the network's inputs and targets have
    unit variance.
    """
    shared = levels(num_levels)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(value_range=(0.0, 1.0)),
            model=dict(name="small_unet"),
            sde=dict(name="ve", sigma_min=sigma_min, sigma_max=sigma_max),
            parameterization=dict(
                name="edm", center=center, sigma_data=sigma_data, condition=dict(name="level_index", num_levels=shared)
            ),
            loss=dict(times=dict(name="ladder", num_levels=shared), weight=dict(name="simple"), reduction="mean"),
            optimizer=dict(name="adam", learning_rate=2e-3, decay="cosine"),
            train=dict(steps=3000, batch_size=128, ema_decay=0.998, log_every=100),
            checkpoint=dict(every=1000, keep=2),
            sampler=dict(
                prior="uniform",
                times=dict(name="ladder", num_levels=shared),
                corrector=dict(name="annealed_langevin", step_size=0.1, num_steps=60),
                predictor=dict(name="none"),
                denoise=True,
                num_images=100,
                batch_size=100,
            ),
        )
    )


def variant(config: ConfigDict, name: str, **tiny_model: Any) -> ConfigDict:
    """The config itself for "", or for "debug" the same experiment in seconds on a CPU, with a model of
    `tiny_model`.
    """
    if name not in ("", "debug"):
        raise ValueError(f"unknown variant {name!r}; the only one is debug")
    if name == "debug":
        config.model.update(tiny_model)
        if "num_levels" in config.loss.times:
            config.loss.times.num_levels = 3  # the sections that share it follow
        config.train.update(dict(steps=4, batch_size=8, log_every=1, preview_every=2))
        config.checkpoint.update(dict(every=2, keep=2))
        if "sampler" not in config:
            return config
        config.sampler.update(dict(num_images=8, batch_size=8))
        for section, few in ((config.sampler.corrector, 1), (config.sampler.times, 3)):
            if "num_steps" in section:
                section.num_steps = few
    return config

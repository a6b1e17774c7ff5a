"""Shared parts of the configs; a config file has only its differences."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference


def levels(number: int | str) -> FieldReference:
    """Return a number of noise levels that several sections share: an override of one changes all.

    Args:
        number: number of levels, or "auto".
    """
    return FieldReference(number, field_type=object)


def small(num_levels: int, sigma_min: float, sigma_max: float, center: float, sigma_data: float) -> ConfigDict:
    """Return noise levels and sampler of NCSN with a small U-Net, with EDM preconditioning, for a CPU.

    Args:
        num_levels: number of noise levels.
        sigma_min: smallest noise level.
        sigma_max: largest noise level.
        center: mean of the pixels.
        sigma_data: standard deviation of the pixels; with both, inputs and targets of the network have unit variance.
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


def small_vp(center: float, sigma_data: float) -> ConfigDict:
    """Return the VP SDE in continuous time with a small U-Net, EDM preconditioning and 200 ancestral steps, for a CPU.

    Args:
        center: mean of the pixels.
        sigma_data: standard deviation of the pixels.
    """
    config = small(num_levels=1, sigma_min=1.0, sigma_max=1.0, center=center, sigma_data=sigma_data)
    config.sde = ConfigDict(dict(name="vp"))
    config.data.value_range = (-1.0, 1.0)
    config.parameterization.condition = ConfigDict(dict(name="scaled_time"))
    config.loss.times = ConfigDict(dict(name="uniform"))
    config.sampler.prior = "gaussian"
    config.sampler.times = ConfigDict(dict(name="uniform", num_steps=200, t_end=1e-3))
    config.sampler.predictor = ConfigDict(dict(name="ancestral"))
    config.sampler.corrector = ConfigDict(dict(name="none"))
    return config


def variant(config: ConfigDict, name: str, **tiny_model: Any) -> ConfigDict:
    """Return the config, or a debug variant: 4 steps, few noise levels and a tiny model.

    Args:
        config: config, which variant "debug" changes.
        name: "" or "debug".
        **tiny_model: keys of section `model` of the debug variant.

    Raises:
        ValueError: unknown variant.
    """
    if name not in ("", "debug"):
        raise ValueError(f"unknown variant {name!r}; the only one is debug")
    if name == "debug":
        config.model.update(tiny_model)
        if "image_size" in config.data:
            config.data.image_size = 32  # configs with the same network share its compiled program in the tests
        if "num_levels" in config.loss.times:
            config.loss.times.num_levels = 3  # sets all sections that share it
        config.train.update(dict(steps=4, batch_size=8, log_every=1, preview_every=2))
        config.checkpoint.update(dict(every=2, keep=2))
        if "sampler" not in config:
            return config
        config.sampler.update(dict(num_images=8, batch_size=8))
        corrector, times = config.sampler.corrector, config.sampler.times
        for section, key, few in ((corrector, "num_steps", 1), (times, "num_steps", 3), (times, "num_levels", 3)):
            if key in section:
                section[key] = few
    return config

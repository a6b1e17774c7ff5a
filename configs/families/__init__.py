"""What the configs of one method share; a config file says only what differs."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference


def levels(number: int | str) -> FieldReference:
    """A number of ladder levels that several sections share: set one of them and all follow."""
    return FieldReference(number, field_type=object)


def ncsn(num_levels: int = 10) -> ConfigDict:
    """NCSN as published: CIFAR-10 and CelebA at 32 pixels (arXiv 1907.05600, Section 5 and Appendix B)."""
    shared = levels(num_levels)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(dequantize=True, value_range=(0.0, 1.0)),
            model=dict(name="ncsn", width=128, num_levels=shared),
            sde=dict(name="ve", sigma_min=0.01, sigma_max=1.0),  # in units of the [0, 1] image range
            parameterization=dict(  # the network sees 2 x - 1 and returns the score
                name="score", center=0.5, input_scale=2.0, condition=dict(name="level_index", num_levels=shared)
            ),
            loss=dict(times=dict(name="ladder", num_levels=shared), weight=dict(name="simple"), reduction="half_sum"),
            optimizer=dict(name="adam", learning_rate=1e-3),
            train=dict(steps=200_000, batch_size=128, ema_decay=0.0, log_every=100, preview_every=5000),
            checkpoint=dict(every=5000, keep=3),
            sampler=dict(
                prior="uniform",
                times=dict(name="ladder", num_levels=shared),
                # step_lr 2e-5 of the released code, over sigma_min^2; the formula of the paper has half of it
                corrector=dict(name="annealed_langevin", step_size=2e-5 / 0.01**2, num_steps=100),
                predictor=dict(name="none"),
                denoise=False,
            ),
        )
    )


def ncsnv2(sigma_max: float | str, num_levels: int | str, step_lr: float | str, num_steps: int) -> ConfigDict:
    """NCSNv2 as published (arXiv 2006.09011, Appendix B); "auto" leaves a choice to its techniques and the data."""
    shared = levels(num_levels)
    step_size = step_lr if isinstance(step_lr, str) else step_lr / 0.01**2  # the paper's epsilon over sigma_min^2
    return ConfigDict(
        dict(
            seed=0,
            data=dict(flip=True, value_range=(0.0, 1.0)),
            model=dict(name="ncsnv2", width=128),
            sde=dict(name="ve", sigma_min=0.01, sigma_max=sigma_max),
            parameterization=dict(name="scaled_score", center=0.5, input_scale=2.0, condition=dict(name="none")),
            loss=dict(times=dict(name="ladder", num_levels=shared), weight=dict(name="simple"), reduction="half_sum"),
            optimizer=dict(name="adam", learning_rate=1e-4),
            train=dict(steps=300_000, batch_size=128, ema_decay=0.999, log_every=100, preview_every=10_000),
            checkpoint=dict(every=5000, keep=3),
            sampler=dict(
                prior="uniform",
                times=dict(name="ladder", num_levels=shared),
                corrector=dict(name="annealed_langevin", step_size=step_size, num_steps=num_steps),
                predictor=dict(name="none"),
                denoise=True,
            ),
        )
    )


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

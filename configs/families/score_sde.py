"""Shared parts of the configs of score-SDE (arXiv 2011.13456 and its released files)."""

from typing import Any

from ml_collections import ConfigDict

from configs.families import variant
from configs.families.methods import METHODS, Method, share_levels

CIFAR10 = dict(name="cifar10", dir=None, flip=True)
DIGITS = dict(name="digits", split="train", dequantize=True)
DEEP = dict(num_blocks=8)
DDPM_256 = dict(name="ddpm", multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0)
NCSNPP_256 = dict(
    name="ncsnpp",
    multipliers=(1, 1, 2, 2, 2, 2, 2),
    num_blocks=2,
    progressive_input="skip",
    progressive_output="skip",
    dropout=0.0,
)
NCSNPP_1024 = NCSNPP_256 | dict(width=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), num_blocks=1)


def folder(image_size: int) -> dict[str, Any]:
    """Return the section `data` of a folder or zip file of images.

    Args:
        image_size: height and width in pixels.
    """
    return dict(name="image_folder", dir=None, image_size=image_size, flip=True)


def ve(
    data: dict[str, Any],
    model: dict[str, Any],
    *,
    sigma_max: float = 50.0,
    num_levels: int | None = None,
    num_steps: int = 1000,
    snr: float = 0.16,
) -> ConfigDict:
    """Return a VE config with predictor-corrector sampling.

    Args:
        data: section `data`.
        model: section `model`.
        sigma_max: largest noise level.
        num_levels: number of noise levels; None for continuous time.
        num_steps: sampling steps in continuous time.
        snr: signal-to-noise ratio of the Langevin corrector.
    """
    config = _common(METHODS["NCSN++"], data, model, value_range=(0.0, 1.0), ema_decay=0.999)
    config.sde.sigma_max = sigma_max
    config.sampler.corrector.snr = snr  # the released code averages the norms over the batch, norms=batch here
    config.loss.reduction = "half_sum"
    if num_levels is None:
        config.sampler.times.num_steps = num_steps
        return config
    del config.sde.t_min
    config.parameterization.condition = ConfigDict(dict(name="level_index", num_levels=num_levels))
    config.loss.times = ConfigDict(dict(name="ladder", num_levels=num_levels))
    config.sampler.times = ConfigDict(dict(name="ladder", num_levels=num_levels))
    share_levels(config, num_levels)
    return config


def vp(data: dict[str, Any], model: dict[str, Any], *, method: str = "DDPM++") -> ConfigDict:
    """Return a VP or sub-VP config in continuous time with Euler-Maruyama sampling.

    Args:
        data: section `data`.
        model: section `model`.
        method: "DDPM++" for VP, or "sub-VP".
    """
    config = _common(METHODS[method], data, model, value_range=(-1.0, 1.0), ema_decay=0.9999)
    config.loss.reduction = "mean"
    return config


def ddpm(data: dict[str, Any], model: dict[str, Any]) -> ConfigDict:
    """Return DDPM with 1000 noise levels (arXiv 2006.11239), and ancestral sampling with the transition variance.

    Args:
        data: section `data`.
        model: section `model`.
    """
    return vp(data, model, method="DDPM")


def deep(config: ConfigDict) -> ConfigDict:
    """Set the fewer training steps of the deep networks."""
    config.train.steps = 950_000
    return config


def large(config: ConfigDict, *, batch_size: int = 64) -> ConfigDict:
    """Set the lengths and batch sizes for images of 256 or 1024 pixels."""
    config.train.update(dict(steps=2_400_000, batch_size=batch_size))
    config.checkpoint.every = 5_000
    config.sampler.update(dict(num_images=16, batch_size=16))
    return config


def tiny(config: ConfigDict, name: str) -> ConfigDict:
    """Return the config, or its debug variant; see `variant`."""
    config = variant(config, name, width=8, multipliers=(1, 1), num_blocks=1)
    if name == "debug":
        config.optimizer.warmup_steps = 2
    return config


def _common(
    method: Method,
    data: dict[str, Any],
    model: dict[str, Any],
    *,
    value_range: tuple[float, float],
    ema_decay: float,
) -> ConfigDict:
    config = method.sections()
    config.update(
        dict(
            seed=42,
            data=data | dict(value_range=value_range),
            model=model,
            optimizer=dict(name="adam", learning_rate=2e-4, warmup_steps=5000, gradient_clip=1.0),
            train=dict(steps=1_300_000, batch_size=128, ema_decay=ema_decay, log_every=50, preview_every=50_000),
            checkpoint=dict(every=10_000, keep=2, keep_every=50_000),
        )
    )
    return config


def digits(config: ConfigDict, name: str, *, center: float, sigma_data: float) -> ConfigDict:
    """Change a config to the 8 x 8 digits, with a small network and EDM preconditioning, for a CPU.

    The digits are dequantized, since the density of discrete values is unbounded.

    Args:
        config: config, which is changed.
        name: "" or "debug".
        center: mean of the pixels.
        sigma_data: standard deviation of the pixels; with both, inputs and targets of the network have unit variance.
    """
    config.model.update(dict(width=32, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0))
    condition = config.parameterization.condition
    config.parameterization = ConfigDict(dict(name="edm", center=center, sigma_data=sigma_data, condition=condition))
    config.loss.reduction = "mean"
    config.optimizer.update(dict(learning_rate=2e-3, warmup_steps=100, decay="cosine"))
    config.train.update(dict(steps=1500, batch_size=128, ema_decay=0.995, log_every=50, preview_every=500))
    config.checkpoint = ConfigDict(dict(every=500, keep=2))
    config.sampler.update(dict(num_images=100, batch_size=100))
    config.sampler.times.num_steps = 100
    return tiny(config, name)


def refinenet(
    data: dict[str, Any],
    model: str,
    *,
    sigma_max: float,
    num_levels: int,
    snr: float,
    num_steps: int,
    ema_decay: float,
) -> ConfigDict:
    """Return NCSN or NCSNv2 with the training of score-SDE.

    Args:
        data: section `data`.
        model: name of the network; "ncsn" for NCSN, another one for NCSNv2.
        sigma_max: largest noise level.
        num_levels: number of noise levels.
        snr: signal-to-noise ratio of annealed Langevin dynamics.
        num_steps: Langevin steps per noise level.
        ema_decay: decay of the EMA.
    """
    method = METHODS["NCSN" if model == "ncsn" else "NCSNv2"]
    config = _common(method, data, dict(name=model, width=128), value_range=(0.0, 1.0), ema_decay=ema_decay)
    config.sde.sigma_max = sigma_max
    config.loss.reduction = "half_sum"
    config.optimizer = ConfigDict(dict(name="adam", learning_rate=1e-3 if model == "ncsn" else 1e-4))
    config.sampler.update(dict(prior="gaussian", denoise=True))
    config.sampler.corrector.update(dict(step_size=2 * snr**2, num_steps=num_steps))
    share_levels(config, num_levels)
    if model == "ncsn":
        config.model.num_levels = config.loss.times.get_ref("num_levels")
    return config

"""Shared parts of the configs of NCSN and NCSNv2; a config file has only its differences."""

from ml_collections import ConfigDict

from configs.families.methods import METHODS, share_levels


def ncsn(num_levels: int = 10) -> ConfigDict:
    """Return NCSN as published for 32 x 32 pixels (arXiv 1907.05600, Section 5 and Appendix B).

    Args:
        num_levels: number of noise levels.
    """
    config = METHODS["NCSN"].sections()
    config.loss.reduction = "half_sum"
    config.update(
        dict(
            seed=0,
            data=dict(dequantize=True, value_range=(0.0, 1.0)),
            model=dict(name="ncsn", width=128),
            optimizer=dict(name="adam", learning_rate=1e-3),
            train=dict(steps=200_000, batch_size=128, ema_decay=0.0, log_every=100, preview_every=5000),
            checkpoint=dict(every=5000, keep=3),
        )
    )
    share_levels(config, num_levels)
    config.model.num_levels = config.loss.times.get_ref("num_levels")
    return config


def ncsnv2(sigma_max: float | str, num_levels: int | str, step_lr: float | str, num_steps: int) -> ConfigDict:
    """Return NCSNv2 as published (arXiv 2006.09011, Appendix B).

    Args:
        sigma_max: largest noise level; "auto" applies technique 1 to the data.
        num_levels: number of noise levels; "auto" applies technique 2.
        step_lr: step size of Langevin dynamics as in the paper; "auto" applies technique 4.
        num_steps: Langevin steps per noise level.
    """
    config = METHODS["NCSNv2"].sections()
    step_size = step_lr if isinstance(step_lr, str) else step_lr / 0.01**2  # the paper's epsilon over sigma_min^2
    with config.ignore_type():
        config.sde.sigma_max = sigma_max
        config.sampler.corrector.step_size = step_size
    config.sampler.corrector.num_steps = num_steps
    config.loss.reduction = "half_sum"
    config.update(
        dict(
            seed=0,
            data=dict(flip=True, value_range=(0.0, 1.0)),
            model=dict(name="ncsnv2", width=128),
            optimizer=dict(name="adam", learning_rate=1e-4),
            train=dict(steps=300_000, batch_size=128, ema_decay=0.999, log_every=100, preview_every=10_000),
            checkpoint=dict(every=5000, keep=3),
        )
    )
    share_levels(config, num_levels)
    return config

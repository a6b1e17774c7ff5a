"""The options of a config's sections, read with their ranges checked."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from score_sde_jax.data import declared_levels
from score_sde_jax.diffusion import ode
from score_sde_jax.errors import UserError
from score_sde_jax.settings import reading as configs
from score_sde_jax.settings.schema import SCHEMA, CheckpointOptions, EvalOptions, SamplerOptions, TrainOptions


def pipeline(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `training_batches` that section `data` holds."""
    return dataclasses.asdict(configs.options(config, SCHEMA, "data"))


def train_options(config: ConfigDict) -> TrainOptions:
    """Section `train`."""
    chosen = configs.options(config, SCHEMA, "train")
    lowest_values = dict(
        steps=1, batch_size=1, log_every=1, preview_every=0, microbatches=1, steps_per_call=1, max_skipped=0
    )
    _require_at_least("train", chosen, **lowest_values)
    if not 0 <= chosen.ema_decay < 1:
        raise UserError(f"config.train.ema_decay={chosen.ema_decay}: from 0 (no averaging) to below 1")
    return chosen


def checkpoint_options(config: ConfigDict) -> CheckpointOptions:
    """Section `checkpoint`."""
    chosen = configs.options(config, SCHEMA, "checkpoint")
    _require_at_least("checkpoint", chosen, every=1, keep=1, keep_every=0)
    return chosen


def sampler_options(config: ConfigDict) -> SamplerOptions:
    """Section `sampler` around the step itself."""
    chosen = configs.options(config, SCHEMA, "sampler")
    _require_at_least("sampler", chosen, num_images=1, batch_size=1, num_frames=1)
    if chosen.temperature <= 0:
        raise UserError(f"config.sampler.temperature={chosen.temperature}: above 0")
    return chosen


def eval_options(config: ConfigDict) -> EvalOptions:
    """Section `eval`."""
    chosen = configs.options(config, SCHEMA, "eval")
    _require_at_least("eval", chosen, num_images=0, batch_size=1, draws=1, repeats=1, num_probes=1)
    try:
        ode.check_options(rtol=chosen.rtol, atol=chosen.atol, max_evaluations=chosen.max_evaluations)
    except ValueError as error:
        raise UserError(f"config.eval: {error}") from error
    t_min, sde = chosen.t_min, config.sde
    if t_min is not None and not sde.t_min <= t_min < sde.t_max:
        raise UserError(f"config.eval.t_min={t_min}: from config.sde.t_min={sde.t_min} to below t_max={sde.t_max}")
    return chosen


def stored_levels(config: ConfigDict) -> int | None:
    """Levels that a dequantised image goes back to when it is stored; None where it was not dequantised."""
    return declared_levels(config.data.name) if config.data.dequantize else None


def _require_at_least(section: str, chosen: Any, **lowest_values: int) -> None:
    for key, lowest in lowest_values.items():
        if getattr(chosen, key) < lowest:
            raise UserError(f"config.{section}.{key}={getattr(chosen, key)}: at least {lowest}")

"""Checks for settings that contradict each other."""

import re
from typing import Any

from score_sde_jax.data import dataset_spec
from score_sde_jax.errors import UserError
from score_sde_jax.settings.sections import EMA, LEVELS, Settings


def check(settings: Settings) -> None:
    """Check settings before a run starts.

    Args:
        settings: settings of the run.

    Raises:
        UserError: the first contradiction, with the keys, their values and a remedy.
    """
    _check_points(settings)
    _check_classifiers(settings)
    _check_calls(settings)
    _check_flat(settings)
    _check_precision(settings)
    _check_levels(settings)
    _check_conditions(settings)
    _check_evaluation(settings)
    _check_times(settings)
    _check_averages(settings)
    sampler = settings.sampler
    if sampler and sampler.predictor.name == sampler.corrector.name == "none":
        raise UserError("--config.sampler: predictor and corrector are both none; choose at least one")


LENGTHS = ("train.steps", "train.log_every", "train.preview_every", "checkpoint.every")
"""Numbers of steps that are multiples of the steps per call."""


def at(settings: Settings, path: str) -> Any:
    """Return the section or value at a dotted path; None inside an absent section."""
    value: Any = settings
    for key in path.split("."):
        value = getattr(value, key, None)
    return value


def _check_points(settings: Settings) -> None:
    """Raise UserError if the data are points and the network is for images."""
    shape, model = dataset_spec(settings.data.name).point_shape, settings.model
    if shape is not None and not getattr(model.entry, "takes_points", False):
        raise UserError(
            f"--config.model.name={model.name}: is for images, not for points of shape {shape}; choose model.name=mlp"
        )


def _check_times(settings: Settings) -> None:
    """Check the training times against the SDE and the weighting."""
    times, weight, sde = settings.loss.times.name, settings.loss.weight.name, settings.sde
    if times == "log_normal" and not sde.entry.time_is_sigma:
        raise UserError(f"--config.loss.times.name=log_normal: needs sde.name=edm, not {sde.name}")
    if times == "ladder" and not sde.entry.has_ladder:
        raise UserError(
            f"--config.loss.times.name=ladder: sde.name={sde.name} has no discrete noise levels; choose uniform or "
            "importance"
        )
    if weight == "likelihood_importance" and times != "importance":
        raise UserError(
            f"--config.loss.weight.name=likelihood_importance: needs loss.times.name=importance, not {times}"
        )
    if weight == "likelihood" and times == "importance":
        raise UserError(
            "--config.loss.weight.name=likelihood: loss.times.name=importance samples by this weighting already; use "
            "likelihood_importance"
        )


def _check_levels(settings: Settings) -> None:
    """Check the numbers of noise levels, which are equal for a network conditioned on the level index."""
    sections = {path: at(settings, path) for path in LEVELS}
    levels = {path: section.get("num_levels") for path, section in sections.items() if section is not None}
    for path, number in levels.items():
        if isinstance(number, int) and number < 2:
            raise UserError(f"--config.{path}.num_levels={number}: must be >= 2")
    if settings.parameterization.condition.name != "level_index":
        return
    if settings.loss.times.name != "ladder":
        raise UserError(
            "--config.parameterization.condition.name=level_index: needs loss.times.name=ladder, "
            f"not {settings.loss.times.name}"
        )
    trained = {path: number for path, number in levels.items() if path in LEVELS[:3] and number is not None}
    if len(set(trained.values())) > 1:
        named = ", ".join(f"--config.{path}.num_levels={number}" for path, number in trained.items())
        raise UserError(f"{named}: must be equal, since the network is conditioned on the level index")


def _check_conditions(settings: Settings) -> None:
    """Check that the network supports the noise condition."""
    network, condition = settings.model, settings.parameterization.condition.name
    conditions = getattr(network.entry, "conditions", None)
    supported = conditions(**network.options()) if conditions else None
    if supported is not None and condition not in supported:
        embedding = network.get("embedding")
        owner = f"model.embedding={embedding}" if embedding else f"model.name={network.name}"
        raise UserError(f"--config.parameterization.condition.name={condition}: {owner} needs {' or '.join(supported)}")


def _check_evaluation(settings: Settings) -> None:
    """Check that the run supports its measurements."""
    if settings.eval.bits_per_dim and settings.loss.name == "classification":
        raise UserError("--config.eval.bits_per_dim=True: a classifier (loss.name=classification) has no density")
    t_min, sde = settings.eval.t_min, settings.sde
    if t_min is not None and not sde.t_min <= t_min < sde.t_max:
        raise UserError(f"--config.eval.t_min={t_min}: must be >= sde.t_min={sde.t_min} and < sde.t_max={sde.t_max}")


def _check_classifiers(settings: Settings) -> None:
    """Check that a classifier, and no other network, has the classification loss, and that it has no sampler."""
    loss, name = settings.loss.name, settings.model.name
    classifies = getattr(settings.model.entry, "is_classifier", False)
    if (loss == "classification") != classifies:
        raise UserError(
            f"--config.loss.name={loss}: model.name={name} is {'a' if classifies else 'no'} classifier; "
            "use loss.name=classification with a classifier, such as model.name=wide_resnet, and no other network"
        )
    if classifies and settings.sampler:
        raise UserError("--config.sampler: a classifier (loss.name=classification) generates no images; leave it out")


def _check_averages(settings: Settings) -> None:
    """Check the names of averages of the parameters."""
    names = (EMA, *settings.train.averages)
    for name in settings.train.averages:
        if not re.fullmatch(r"\w+", name):
            raise UserError(f"--config.train.averages.{name}: a name has letters, digits and underscores only")
    if EMA in settings.train.averages:
        raise UserError(
            "--config.train.averages.ema: ema is the average with decay train.ema_decay; choose another name"
        )
    for path in ("sampler.average", "eval.average"):
        if (name := at(settings, path)) not in (None, *names):
            raise UserError(f"--config.{path}={name}: choose one of {', '.join(names)}, or add it to train.averages")


def _check_flat(settings: Settings) -> None:
    """Check that a state in flat vectors is not split by parameters too."""
    if settings.train.flat and settings.parallel.get("fully_sharded"):
        raise UserError("--config.train.flat=True: contradicts parallel.fully_sharded=True; leave one of them out")


def _check_precision(settings: Settings) -> None:
    """Check that the network can compute in bfloat16 where it should."""
    for path in ("train.precision", "sampler.precision"):
        if at(settings, path) == "bfloat16" and settings.model.get("dtype") is None:
            raise UserError(f"--config.{path}=bfloat16: model.name={settings.model.name} computes in float32 only")


def _check_calls(settings: Settings) -> None:
    """Check that all lengths are multiples of the steps per call."""
    per_call = settings.train.steps_per_call or 1
    for path in LENGTHS:
        length = at(settings, path)
        if length % per_call:
            raise UserError(f"--config.{path}={length}: must be a multiple of train.steps_per_call={per_call}")

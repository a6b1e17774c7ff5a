"""Settings that contradict each other are refused here, in one line, before any work."""

import re
from typing import Any

from score_sde_jax.errors import UserError
from score_sde_jax.settings.sections import EMA, LEVELS, Settings


def check(settings: Settings) -> None:
    """Raise UserError for the first contradiction: it names the keys, their values and what would fit."""
    _check_classifiers(settings)
    _check_calls(settings)
    _check_levels(settings)
    _check_conditions(settings)
    _check_evaluation(settings)
    _check_times(settings)
    _check_averages(settings)
    sampler = settings.sampler
    if sampler and sampler.predictor.name == sampler.corrector.name == "none":
        raise UserError("--config.sampler: predictor and corrector are both none; choose at least one")


def at(settings: Settings, path: str) -> Any:
    """The section or value at a dotted path; None inside a section that is left out."""
    value: Any = settings
    for key in path.split("."):
        value = getattr(value, key, None)
    return value


def _check_times(settings: Settings) -> None:
    """Training times that the SDE does not have, or that do not go with the weighting."""
    times, weight, sde = settings.loss.times.name, settings.loss.weight.name, settings.sde
    if times == "log_normal" and not sde.entry.time_is_sigma:
        raise UserError(f"--config.loss.times.name=log_normal: needs sde.name=edm, not {sde.name}")
    if times == "ladder" and not sde.entry.has_ladder:
        raise UserError(
            f"--config.loss.times.name=ladder: sde.name={sde.name} has no noise levels; choose uniform or importance"
        )
    if weight == "likelihood_importance" and times != "importance":
        raise UserError(
            f"--config.loss.weight.name=likelihood_importance: needs loss.times.name=importance, not {times}"
        )
    if weight == "likelihood" and times == "importance":
        raise UserError(
            "--config.loss.times.name=importance: draws by the weighting already; choose "
            "loss.weight.name=likelihood_importance, not likelihood"
        )


def _check_levels(settings: Settings) -> None:
    """A ladder of one level, and ladders of different lengths for a network conditioned on the level index."""
    sections = {path: at(settings, path) for path in LEVELS}
    levels = {path: section.get("num_levels") for path, section in sections.items() if section is not None}
    for path, number in levels.items():
        if isinstance(number, int) and number < 2:
            raise UserError(f"--config.{path}.num_levels={number}: must be >= 2")
    if settings.parameterization.condition.name != "level_index":
        return
    if settings.loss.times.name != "ladder":
        raise UserError(
            "--config.parameterization.condition.name=level_index: level_index needs loss.times.name=ladder, "
            f"not {settings.loss.times.name}"
        )
    trained = {path: number for path, number in levels.items() if path in LEVELS[:3] and number is not None}
    if len(set(trained.values())) > 1:
        named = ", ".join(f"--config.{path}.num_levels={number}" for path, number in trained.items())
        raise UserError(f"{named}: must be equal, since the network is conditioned on the level index")


def _check_conditions(settings: Settings) -> None:
    """A noise condition that the network cannot read."""
    network, condition = settings.model, settings.parameterization.condition.name
    conditions = getattr(network.entry, "conditions", None)
    readable = conditions(**network.options()) if conditions else None
    if readable is not None and condition not in readable:
        embedding = network.get("embedding")
        what = f"model.embedding={embedding}" if embedding else f"model.name={network.name}"
        raise UserError(f"--config.parameterization.condition.name={condition}: {what} needs {' or '.join(readable)}")


def _check_evaluation(settings: Settings) -> None:
    """Measurements that the run's objects do not have."""
    if settings.eval.bits_per_dim and settings.loss.name == "classification":
        raise UserError("--config.eval.bits_per_dim=True: a classifier (loss.name=classification) has no density")
    t_min, sde = settings.eval.t_min, settings.sde
    if t_min is not None and not sde.t_min <= t_min < sde.t_max:
        raise UserError(f"--config.eval.t_min={t_min}: must be >= sde.t_min={sde.t_min} and < sde.t_max={sde.t_max}")


def _check_classifiers(settings: Settings) -> None:
    """A classifier that learns no classes or draws images, and classes learned by another network."""
    loss, name = settings.loss.name, settings.model.name
    classifies = getattr(settings.model.entry, "is_classifier", False)
    if (loss == "classification") != classifies:
        raise UserError(
            f"--config.loss.name={loss}: model.name={name} is {'a' if classifies else 'no'} classifier; "
            "loss.name=classification and a classifier such as model.name=wide_resnet go together"
        )
    if classifies and settings.sampler:
        raise UserError("--config.sampler: a classifier (loss.name=classification) draws no images; leave it out")


def _check_averages(settings: Settings) -> None:
    """An average that is not kept, and one with the name of the first."""
    names = (EMA, *settings.train.averages)
    for name in settings.train.averages:
        if not re.fullmatch(r"\w+", name):
            raise UserError(f"--config.train.averages.{name}: a name has letters, digits and underscores only")
    if EMA in settings.train.averages:
        raise UserError(
            "--config.train.averages.ema: ema is the average with the decay train.ema_decay; name it otherwise"
        )
    for path in ("sampler.average", "eval.average"):
        if (name := at(settings, path)) not in (None, *names):
            raise UserError(f"--config.{path}={name}: must be one of {', '.join(names)}; train.averages names more")


def _check_calls(settings: Settings) -> None:
    """A length that is no multiple of the steps of a call."""
    per_call = settings.train.steps_per_call
    for path in ("train.steps", "train.log_every", "train.preview_every", "checkpoint.every"):
        length = at(settings, path)
        if length % per_call:
            raise UserError(f"--config.{path}={length}: must be a multiple of train.steps_per_call={per_call}")

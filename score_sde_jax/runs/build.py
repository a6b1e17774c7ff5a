"""From config sections to objects."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from score_sde_jax import samplers
from score_sde_jax.data import Dataset
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.diffusion import losses, parameterization
from score_sde_jax.diffusion.parameterization import Parameterization
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.networks import BLOCK_OUTPUT
from score_sde_jax.networks.optimizer import learning_rate_schedule
from score_sde_jax.runs.experiment import Experiment
from score_sde_jax.samplers import PRIORS, Sampler
from score_sde_jax.settings import reading as configs
from score_sde_jax.settings.auto import sampling_times
from score_sde_jax.settings.options import checkpoint_options, eval_options, pipeline, sampler_options, train_options
from score_sde_jax.settings.rules import refuse_contradictions
from score_sde_jax.settings.schema import SCHEMA, RootOptions
from score_sde_jax.tasks import Task

__all__ = [
    "Experiment",
    "checkpoint_options",
    "dataset",
    "eval_options",
    "experiment",
    "finish",
    "from_saved",
    "parallel",
    "pipeline",
    "sampler_options",
    "sampling_times",
    "task",
    "train_options",
]


def finish(config: ConfigDict, assignments: list[str]) -> ConfigDict:
    """Complete, override and check a config as a file gives it; the result has every key."""
    with config.unlocked():
        configs.complete(config, SCHEMA)
        configs.override(config, SCHEMA, assignments)
    configs.check(config, SCHEMA)
    refuse_contradictions(config)
    return config


def from_saved(saved: Mapping[str, Any]) -> ConfigDict:
    """The config that a workdir keeps, with the defaults of keys that are younger than it."""
    known = {key: value for key, value in saved.items() if key in SCHEMA or key in configs.arguments(RootOptions)}
    return finish(ConfigDict(_tuples(known)), [])


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were; networks must be hashable."""
    if isinstance(value, dict):
        return {key: _tuples(inside) for key, inside in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def dataset(config: ConfigDict) -> Dataset:
    """The data set of section `data`; UserError where it lacks the classes that a classifier is to learn."""
    data = configs.construct(config, SCHEMA, "data")
    if config.loss.name == "classification":
        if not data.num_classes:
            raise UserError(f"config.data.name={config.data.name}: {data.name} has no labels to learn")
        if data.num_classes > config.model.num_classes:
            few = f"config.model.num_classes={config.model.num_classes}"
            raise UserError(f"config.data.name={config.data.name}: has {data.num_classes} classes, {few}")
    return data


def task(config: ConfigDict, image_shape: tuple[int, ...]) -> Task:
    """What is drawn: section `task`; UserError where it makes no sense for images of this shape."""
    chosen = configs.construct(config, SCHEMA, "task")
    chosen.check(image_shape)
    return chosen


def parallel(config: ConfigDict) -> Parallel:
    """How the run uses the devices: section `parallel`."""
    return configs.construct(config, SCHEMA, "parallel")


def experiment(config: ConfigDict, image_shape: tuple[int, ...]) -> Experiment:
    """Everything that training and sampling need, for a config without "auto" values."""
    make = partial(configs.construct, config, SCHEMA)
    train = train_options(config)
    schedule_options = configs.options(config, SCHEMA, "optimizer")
    schedule = learning_rate_schedule(num_steps=train.steps, **dataclasses.asdict(schedule_options))
    sde, network = make("sde"), make("model")
    how = Parameterization(
        coefficients=_bound(config, "parameterization"),
        condition=_bound(config, "parameterization.condition"),
        **dataclasses.asdict(configs.options(config, SCHEMA, "parameterization")),
    )
    times = _bound(config, "loss.times")
    objective = partial(
        _bound(config, "loss"),
        times=times,
        weight=_bound(config, "loss.weight"),
        reduction=losses.REDUCTIONS[config.loss.reduction],
    )
    apply: Callable[..., Any] = partial(network.apply, train=True)
    if train.rematerialize:
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(BLOCK_OUTPUT))

    def loss_of(network: Callable[..., Any], keys: Array, batch: PyTree, **other: Any) -> Array:
        if config.loss.name == "classification":
            return objective(how.log_probabilities(network, sde), sde, keys, batch["image"], batch["label"], **other)
        return objective(how.noise_fn(network, sde), sde, keys, batch["image"], **other)

    def loss_fn(params: PyTree, keys: Array, batch: PyTree) -> Array:
        more = {"dropout_keys": losses.dropout_keys(keys)} if config.model.get("dropout") else {}
        return loss_of(partial(apply, params, **more), keys, batch)

    def held_out_loss(params: PyTree, keys: Array, batch: PyTree, times: losses.TrainingTimes = times) -> Array:
        return loss_of(partial(network.apply, params, train=False), keys, batch, times=times)

    return Experiment(
        sde=sde,
        network=network,
        parameterization=how,
        loss_fn=loss_fn,
        held_out_loss=held_out_loss,
        noise_level=partial(losses.noise_level, sde, times=times),
        optimizer=make("optimizer", schedule),
        schedule=schedule,
        sampler=_sampler(config, sde) if "sampler" in config else None,
        image_shape=image_shape,
        train=train,
        relative_step_size=config.sampler.corrector.get("step_size") if "sampler" in config else None,
    )


def _bound(config: ConfigDict, path: str) -> Callable[..., Any]:
    """The function a section picks, with the section's keys bound to it."""
    section, spec = configs.section(config, path), SCHEMA[path]
    return partial(spec.choices[section.name], **{key: section[key] for key in spec.own(section.name)})


def _sampler(config: ConfigDict, sde: SDE) -> Sampler:
    chosen = sampler_options(config)
    names = chosen.order.split("_")
    sections = [f"sampler.{name}" for name in names]

    def step(sde: SDE, noise_fn: parameterization.NoiseFn) -> samplers.Step:
        return samplers.chain(*(configs.construct(config, SCHEMA, path, sde, noise_fn) for path in sections))

    step(sde, lambda x, t: x)  # a step that refuses its keys does so here, before any work
    return Sampler(
        sde=sde,
        prior=PRIORS[chosen.prior],
        step=step,
        times=sampling_times(config, sde),
        denoise=chosen.denoise,
        num_frames=chosen.num_frames,
        temperature=chosen.temperature,
    )

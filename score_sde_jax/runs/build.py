"""From settings to objects."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, PyTree

from score_sde_jax import samplers
from score_sde_jax.data import Dataset
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.parameterization import NoiseFn, Parameterization
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.networks import BLOCK_OUTPUT
from score_sde_jax.networks.optimizer import learning_rate_schedule
from score_sde_jax.runs.experiment import Experiment
from score_sde_jax.samplers import PRIORS, Sampler
from score_sde_jax.settings.sections import Settings
from score_sde_jax.tasks import Task


def dataset(settings: Settings) -> Dataset:
    """The dataset of section `data`; UserError if it lacks the classes that a classifier is to learn."""
    data = settings.data()
    if settings.loss.name == "classification":
        if not data.num_classes:
            raise UserError(f"--config.data.name={settings.data.name}: {data.name} has no labels to learn")
        if data.num_classes > settings.model.num_classes:
            raise UserError(
                f"--config.model.num_classes={settings.model.num_classes}: {data.name} has {data.num_classes} classes"
            )
    return data


def task(settings: Settings, image_shape: tuple[int, ...]) -> Task:
    """What is drawn: section `task`; UserError if it makes no sense for images of this shape."""
    chosen = settings.task()
    chosen.check(image_shape)
    return chosen


def experiment(settings: Settings, image_shape: tuple[int, ...]) -> Experiment:
    """Everything that training and sampling need, for settings without "auto" values."""
    sde, network, train = settings.sde(), settings.model(), settings.train
    schedule = learning_rate_schedule(
        settings.optimizer.learning_rate,
        train.steps,
        warmup_steps=settings.optimizer.warmup_steps,
        decay=settings.optimizer.decay,
    )
    parameterization = Parameterization(
        coefficients=settings.parameterization.bind(),
        condition=settings.parameterization.condition.bind(),
        center=settings.parameterization.center,
        input_scale=settings.parameterization.input_scale,
    )
    times = settings.loss.times.bind()
    objective = partial(
        settings.loss.bind(),
        times=times,
        weight=settings.loss.weight.bind(),
        reduction=losses.REDUCTIONS[settings.loss.reduction],
    )
    classifies = settings.loss.name == "classification"
    apply: Callable[..., Any] = partial(network.apply, train=True)
    if train.rematerialize:
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(BLOCK_OUTPUT))

    def loss_of(network: Callable[..., Any], keys: Array, batch: PyTree, **other: Any) -> Array:
        if classifies:
            log_probabilities = parameterization.log_probabilities(network, sde)
            return objective(log_probabilities, sde, keys, batch["image"], batch["label"], **other)
        return objective(parameterization.noise_fn(network, sde), sde, keys, batch["image"], **other)

    def loss_fn(params: PyTree, keys: Array, batch: PyTree) -> Array:
        more = {"dropout_keys": losses.dropout_keys(keys)} if settings.model.get("dropout") else {}
        return loss_of(partial(apply, params, **more), keys, batch)

    def held_out_loss(params: PyTree, keys: Array, batch: PyTree, times: losses.TrainingTimes = times) -> Array:
        return loss_of(partial(network.apply, params, train=False), keys, batch, times=times)

    return Experiment(
        sde=sde,
        network=network,
        parameterization=parameterization,
        loss_fn=loss_fn,
        held_out_loss=held_out_loss,
        noise_level=partial(losses.noise_level, sde, times=times),
        optimizer=settings.optimizer(schedule),
        schedule=schedule,
        sampler=_sampler(settings, sde) if settings.sampler else None,
        image_shape=image_shape,
        train=train,
        relative_step_size=settings.sampler.corrector.get("step_size") if settings.sampler else None,
    )


def _sampler(settings: Settings, sde: SDE) -> Sampler:
    section = settings.sampler
    assert section is not None
    parts = [getattr(section, name) for name in section.order.split("_")]

    def step(sde: SDE, noise_fn: NoiseFn) -> samplers.Step:
        return samplers.chain(*(part(sde, noise_fn) for part in parts))

    step(sde, lambda x, t: x)  # a step that refuses its keys does so here, before any work
    return Sampler(
        sde=sde,
        prior=PRIORS[section.prior],
        step=step,
        times=section.times(sde),
        denoise=section.denoise,
        num_frames=section.num_frames,
        temperature=section.temperature,
    )

"""Construction of the objects of a run from its settings."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, PyTree

from score_sde_jax import keys as prng
from score_sde_jax import samplers
from score_sde_jax.data import Dataset, Pixels, dataset_spec
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.parameterization import NoiseFn, Parameterization
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.keys import Stream
from score_sde_jax.networks import BLOCK_OUTPUT
from score_sde_jax.networks.optimizer import learning_rate_schedule
from score_sde_jax.runs.experiment import Experiment
from score_sde_jax.runs.step import LossFn, several_steps, training_step
from score_sde_jax.samplers import PRIORS, Sampler
from score_sde_jax.settings.sections import Settings
from score_sde_jax.tasks import Task


def dataset(settings: Settings) -> Dataset:
    """Return the dataset of section `data`; UserError if it lacks the classes of the network."""
    data = settings.data()
    check_classes(settings, data)
    return data


def check_classes(settings: Settings, data: Dataset) -> None:
    """Compare the classes of the data with those of the network, and add notes to the data where they differ.

    Raises:
        UserError: the network has classes, and the data have none or more classes.
    """
    num_classes = settings.model.get("num_classes", 0)
    if not num_classes and settings.data.get("labels"):
        labels = settings.data.labels
        data.notes.append(f"note: data.labels={labels}, but model.name={settings.model.name} has no classes to learn")
    if not num_classes:
        return
    if not data.num_classes:
        remedy = "; give --config.data.labels=True or file_names" if settings.data.get("labels") is False else ""
        raise UserError(f"--config.data.name={settings.data.name}: {data.name} has no labels to learn{remedy}")
    if data.num_classes > num_classes:
        raise UserError(
            f"--config.model.num_classes={settings.model.num_classes}: {data.name} has {data.num_classes} classes"
        )
    if data.num_classes < num_classes:
        data.notes.append(f"note: model.num_classes={num_classes}, but {data.name} has {data.num_classes} classes")


def task(settings: Settings, image_shape: tuple[int, ...]) -> Task:
    """Return the task of section `task`; UserError if it does not fit images of this shape."""
    if settings.task.name == "class_conditional" and not (settings.task.classifier or known_classes(settings)):
        raise UserError(
            "--config.task.name=class_conditional: the network has no labels (model.num_classes); give the workdir of "
            "a trained classifier by --config.task.classifier=DIR"
        )
    selected = settings.task()
    selected.check(image_shape)
    return selected


def pixels(settings: Settings) -> Pixels:
    """Return the map from stored images to x_0; UserError for options that the dataset does not have."""
    section = settings.data
    return Pixels(
        levels=dataset_spec(section.name).levels,
        value_range=section.value_range,
        dequantize=section.dequantize,
        flip=section.flip,
    )


def known_classes(settings: Settings) -> int:
    """Return the number of classes that the network is conditioned on, 0 for none."""
    return 0 if settings.loss.name == "classification" else settings.model.get("num_classes", 0)


def experiment(settings: Settings, image_shape: tuple[int, ...]) -> Experiment:
    """Return the objects of a run, for settings without "auto" values.

    Args:
        settings: settings of the run.
        image_shape: shape of an image or point.

    Raises:
        UserError: settings contradict each other.
    """
    sde, network, train = settings.sde(), settings.model(), settings.train
    _check_noise(settings, sde)
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
    loss_fn, held_out_loss = _losses(settings, sde, network, parameterization)
    optimizer, normalized_log_nsr = (
        settings.optimizer(schedule),
        partial(losses.normalized_log_nsr, sde, times=settings.loss.times.bind()),
    )
    step = training_step(
        loss_fn,
        optimizer,
        train.ema_decay,
        normalized_log_nsr,
        microbatches=train.microbatches,
        averages=train.averages,
    )
    return Experiment(
        sde=sde,
        network=network,
        sampling_apply=in_precision(network, settings.sampler.precision if settings.sampler else "default"),
        parameterization=parameterization,
        loss_fn=loss_fn,
        held_out_loss=held_out_loss,
        pixels=pixels(settings),
        num_classes=known_classes(settings),
        normalized_log_nsr=normalized_log_nsr,
        optimizer=optimizer,
        schedule=schedule,
        sampler=_sampler(settings, sde) if settings.sampler else None,
        image_shape=image_shape,
        steps=several_steps(step),
        averages=tuple(train.averages),
        langevin_step_size=settings.sampler.corrector.get("step_size") if settings.sampler else None,
    )


def _check_noise(settings: Settings, sde: SDE) -> None:
    """Raise UserError if float32 does not resolve the noise levels at the ends of the time interval."""
    ends = jnp.asarray([sde.t_min, sde.t_max], jnp.float32)
    alpha, sigma = (np.asarray(jax.vmap(schedule)(ends)) for schedule in (sde.alpha, sde.sigma))
    if not (np.isfinite([alpha, sigma]).all() and (alpha > 0).all() and sigma[1] > sigma[0] >= 0):
        options = ", ".join(f"{key}={value}" for key, value in settings.sde.options().items())
        raise UserError(
            f"--config.sde.name={settings.sde.name} with {options}: from t_min to t_max, alpha goes from {alpha[0]:g} "
            f"to {alpha[1]:g} and sigma from {sigma[0]:g} to {sigma[1]:g}; they must be finite, alpha > 0, and sigma "
            "must increase"
        )


MATMUL_PRECISION = {"highest": "highest", "tf32": "tensorfloat32"}
"""JAX's name of a precision of float32 products and convolutions."""


def in_precision(network: nn.Module, precision: str) -> Callable[..., Any]:
    """Return `network.apply` in one of the precisions of `train.precision`."""
    module = network.clone(dtype="bfloat16") if precision == "bfloat16" else network

    def apply(*args: Any, **kwargs: Any) -> Any:
        named = MATMUL_PRECISION.get(precision)
        with jax.default_matmul_precision(named) if named else contextlib.nullcontext():
            return module.apply(*args, **kwargs)

    return apply


def computed_in(precision: str, dtype: str) -> str:
    """Return the type that products are computed in, as `costs.utilization` names it; "unknown" if it has none."""
    return {"default": dtype, "tf32": dtype, "bfloat16": "bfloat16"}.get(precision, "unknown")


def _losses(
    settings: Settings, sde: SDE, network: nn.Module, parameterization: Parameterization
) -> tuple[LossFn, Callable[..., Array]]:
    """Return the loss in training and the loss of held-out images, see `Experiment`."""
    classifies, num_classes, scale = settings.loss.name == "classification", known_classes(settings), pixels(settings)
    times, has_dropout = settings.loss.times.bind(), bool(settings.model.get("dropout"))
    objective = partial(
        settings.loss.bind(),
        times=times,
        weight=settings.loss.weight.bind(),
        reduction=losses.REDUCTIONS[settings.loss.reduction],
    )
    apply: Callable[..., Any] = partial(in_precision(network, settings.train.precision), train=True)
    if settings.train.rematerialize:
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(BLOCK_OUTPUT))

    def loss_of(network: Callable[..., Any], keys: Array, batch: PyTree, **other: Any) -> Array:
        x0, label = batch["image"], batch["label"] if num_classes or classifies else None
        if classifies:
            return objective(parameterization.log_probabilities(network, sde), sde, keys, x0, label, **other)
        return objective(parameterization.noise_fn(network, sde, label), sde, keys, x0, **other)

    def loss_fn(params: PyTree, keys: Array, batch: PyTree) -> Array:
        batch = {**batch, "image": scale(keys, batch["image"])}
        if num_classes:
            unit = prng.uniform(prng.stream(keys, Stream.LABEL), jnp.zeros(len(batch["label"])))
            batch["label"] = jnp.where(unit < settings.train.label_dropout, num_classes, batch["label"])
        dropout = {"dropout_keys": prng.stream(keys, Stream.DROPOUT)} if has_dropout else {}
        return loss_of(partial(apply, params, **dropout), keys, batch)

    def held_out_loss(params: PyTree, keys: Array, batch: PyTree, times: losses.TrainingTimes = times) -> Array:
        return loss_of(partial(network.apply, params, train=False), keys, batch, times=times)

    return loss_fn, held_out_loss


def _sampler(settings: Settings, sde: SDE) -> Sampler:
    section = settings.sampler
    assert section is not None
    parts = [getattr(section, name) for name in section.order.split("_")]

    def step(sde: SDE, noise_fn: NoiseFn) -> samplers.Step:
        return samplers.chain(*(part(sde, noise_fn) for part in parts))

    step(sde, lambda x, t: x)  # an invalid option of a step fails here, before any work
    return Sampler(
        sde=sde,
        prior=PRIORS[section.prior],
        step=step,
        times=section.times(sde),
        denoise=section.denoise,
        num_frames=section.num_frames,
        temperature=section.temperature,
    )

"""The objects of one run, and the pure functions of training and sampling."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.condition import Condition
from score_sde_jax.data import Pixels
from score_sde_jax.devices.costs import GradientCost, gradient_cost
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.diffusion.parameterization import LogProbabilities, NoiseFn, Parameterization
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.networks.convolution import native_convolutions
from score_sde_jax.runs.step import LossFn, NoiseLevel, TrainState, init_state
from score_sde_jax.samplers import Sampler, Samples
from score_sde_jax.settings.sections import EMA
from score_sde_jax.tasks import UNCONDITIONAL, Networks, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The objects that the settings of a run describe, for images of one shape.

    Attributes:
        sde: diffusion.
        network: linen module.
        sampling_apply: `network.apply` in the precision of the sampler.
        parameterization: preconditioning and noise-level conditioning of the network.
        loss_fn: function (params, keys, batch as stored) to the training loss of each example.
        held_out_loss: function (params, keys, batch of x_0[, times]) to the loss of each example without dropout.
        normalized_log_nsr: function (keys) to the noise of each training example, from 0 at t_min to 1 at t_max.
        pixels: map between stored values and x_0.
        optimizer: gradient transformation.
        schedule: learning rate as a function of the step.
        sampler: sampler of the settings; None for a run without images, such as that of a classifier.
        image_shape: shape of one image.
        steps: pure function (state, batches, key[, replica]) to (state, metrics), one step per batch.
        averages: names of the averages of the parameters other than the EMA.
        langevin_step_size: Langevin step size in units of sigma^2; None if there is none.
        num_classes: classes that the network is conditioned on; 0 for none.
        task: sampling task.
        classifier: experiment of the classifier whose gradient guides the sampler; None for none.
    """

    sde: SDE
    network: nn.Module
    sampling_apply: Callable[..., Any]
    parameterization: Parameterization
    loss_fn: LossFn
    held_out_loss: Callable[..., Array]
    normalized_log_nsr: NoiseLevel
    pixels: Pixels
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    sampler: Sampler | None
    image_shape: tuple[int, ...]
    steps: Callable[..., Any]
    averages: tuple[str, ...]
    langevin_step_size: float | None
    num_classes: int = 0
    task: Task = UNCONDITIONAL
    classifier: "Experiment | None" = None

    def notes(self) -> list[str]:
        """Return lines to print about unexpected properties of the network."""
        notes = getattr(self.network, "notes", None)
        return notes(self.image_shape) if notes else []

    def init(self, key: Array) -> TrainState:
        """Return the state before the first step."""
        return init_state(self.init_params(key), self.optimizer, self.averages)

    def init_params(self, key: Array) -> PyTree:
        """Return the initial parameters of the network."""
        x, t = jnp.zeros((1, *self.image_shape)), jnp.full((1,) * (1 + len(self.image_shape)), self.sde.t_max)
        noise = self.parameterization.condition(self.sde, t)
        noise = None if noise is None else jnp.reshape(noise, -1)
        label = jnp.zeros(1, jnp.int32) if self.num_classes else None
        return self.network.init(key, x, Condition(noise=noise, label=label), train=False)

    def batch_shapes(self, batch_size: int) -> tuple[PyTree, PyTree]:
        """Return the shapes of a training batch and of its keys."""
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
        stored = jnp.float32 if self.pixels.levels is None else jnp.uint8
        images = jax.ShapeDtypeStruct((batch_size, *self.image_shape), stored)
        return {"image": images, "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}, keys

    def noise_fn(self, params: PyTree, label: Array | None = None) -> NoiseFn:
        """Return the noise prediction (x, t) -> eps_hat of the network with these parameters and labels."""
        return self._noise_fn(self.network.apply, params, label)

    def log_probabilities(self, params: PyTree) -> LogProbabilities:
        """Return (x, t) -> log p(class | x_t = x) of a classifier with these parameters."""
        return self.parameterization.log_probabilities(_without_dropout(self.network.apply, params), self.sde)

    def _noise_fn(self, apply: Callable[..., Any], params: PyTree, label: Array | None = None) -> NoiseFn:
        return self.parameterization.noise_fn(_without_dropout(apply, params), self.sde, label)

    def sample(self, params: PyTree, indices: Array, key: Array, given: Mapping[str, Array]) -> Samples:
        """Generate images by their indices; a pure function.

        Args:
            params: parameters of the network; with a classifier, the pair of those of the network and the classifier.
            indices: index of each image.
            key: root key of the samples.
            given: input arrays of the task, one row per image.

        Returns:
            The images, intermediate samples, and the NFE of each image.
        """
        assert self.sampler is not None, "nothing to sample with"
        like = jnp.zeros((len(indices), *self.image_shape))
        keys = prng.per_image(key, indices)
        noise_fn = partial(self._noise_fn, self.sampling_apply)
        if self.classifier is None:
            conditional = partial(noise_fn, params) if self.num_classes else None
            networks = Networks(noise_fn(params), conditional=conditional)
        else:
            log_probabilities = self.classifier.log_probabilities(params[1])
            networks = Networks(noise_fn(params[0]), log_probabilities=log_probabilities)
        return self.task.sample(self.sampler, networks, keys, like, given)

    def step_sizes(self, sigmas: np.ndarray) -> np.ndarray | None:
        """Return the Langevin step size at each noise level; None if it depends on the images or there is none."""
        return None if self.langevin_step_size is None else self.langevin_step_size * sigmas**2


def _without_dropout(apply: Callable[..., Any], params: PyTree) -> Callable[..., Any]:
    return lambda x, condition: apply(params, x, condition, train=False)


def training_cost(experiment: Experiment, params: PyTree, batch_size: int) -> GradientCost:
    """Return the cost of the mean loss of a batch and its gradient, from shapes alone.

    Args:
        experiment: the experiment, whose loss may recompute activations.
        params: shapes of the parameters.
        batch_size: images of the batch.
    """
    batch, keys = experiment.batch_shapes(batch_size)
    with native_convolutions():
        return gradient_cost(lambda *args: jnp.mean(experiment.loss_fn(*args)), params, keys, batch)


def abstract_average(experiment: Experiment, parallel: Parallel, name: str) -> dict[str, PyTree]:
    """Return shapes and placement of the step and one average of the parameters in a checkpoint."""
    params = parallel.abstract(experiment.init_params, prng.root(0, "init"))
    average = {"ema_params": params} if name == EMA else {"averages": {name: params}}
    return {"step": parallel.abstract(lambda: jnp.zeros((), jnp.int32)), **average}


def average_of(state: Mapping[str, PyTree], name: str) -> PyTree:
    """Return the average of this name from the entries of a state."""
    return state["ema_params"] if name == EMA else state["averages"][name]

"""The training state, which is what a checkpoint holds, and the pure function that advances it by one step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key, PyTree

from score_sde_jax import keys as prng

LossFn = Callable[[PyTree, Key[Array, " batch"], Float[Array, "batch *shape"]], Float[Array, " batch"]]


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on; the data position and all keys are functions of `step`."""

    step: Int[Array, ""]
    params: PyTree
    ema_params: PyTree
    opt_state: optax.OptState


class StepMetrics(NamedTuple):
    """Scalars of one training step."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


def init_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """State before the first step; the average of the parameters starts at the parameters."""
    ema_params = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema_params, optimizer.init(params))


def training_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, ema_decay: float
) -> Callable[[TrainState, Float[Array, "batch *shape"], Key[Array, ""]], tuple[TrainState, StepMetrics]]:
    """(state, images, root key) -> (next state, metrics), a pure function over the global batch.

    `loss_fn(params, keys, images)` gives the loss of each image. Row i of the batch of step n always has the same key.
    """

    def step(state: TrainState, x0: Any, key: Any) -> tuple[TrainState, StepMetrics]:
        keys = prng.per_image(jax.random.fold_in(key, state.step), jnp.arange(len(x0)))

        def objective(params: PyTree) -> Float[Array, ""]:
            return jnp.mean(loss_fn(params, keys, x0))

        loss, gradients = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = optax.incremental_update(params, state.ema_params, 1 - ema_decay)
        next_state = TrainState(state.step + 1, params, ema_params, opt_state)
        return next_state, StepMetrics(loss, optax.tree.norm(gradients))

    return step

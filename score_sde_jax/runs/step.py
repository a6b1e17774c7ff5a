"""The training state, which a checkpoint holds, and the pure functions that advance it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from score_sde_jax import keys as prng
from score_sde_jax.devices.machine import on_cpu
from score_sde_jax.devices.parallel import ALONE, Replica
from score_sde_jax.diffusion.losses import NUM_BINS
from score_sde_jax.runs.flat import as_tree, in_form_of

LossFn = Callable[[PyTree, Key[Array, " batch"], PyTree], Float[Array, " batch"]]
NoiseLevel = Callable[[Key[Array, " batch"]], Float[Array, " batch"]]


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on; the data position and all keys are functions of `step`.

    `ema_params` are the averaged parameters that runs are sampled with, `averages` more of other decays by their names.
    `skipped` counts the steps whose update was skipped because it was not finite.
    """

    step: Int[Array, ""]
    params: PyTree
    ema_params: PyTree
    opt_state: optax.OptState
    skipped: Int[Array, ""]
    averages: dict[str, PyTree] = struct.field(default_factory=dict)


class StepMetrics(NamedTuple):
    """Scalars of one training step, and sums over the images of each bin of noise levels."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    param_norm: Float[Array, ""]
    update_norm: Float[Array, ""]
    level_loss: Float[Array, " bins"]
    level_count: Float[Array, " bins"]
    skipped: Int[Array, ""]


def init_state(params: PyTree, optimizer: optax.GradientTransformation, averages: Sequence[str] = ()) -> TrainState:
    """State before the first step; every average of the parameters starts at the parameters."""

    def copied() -> PyTree:
        return jax.tree.map(jnp.copy, params)

    zero = functools.partial(jnp.zeros, (), jnp.int32)
    named = {name: copied() for name in averages}
    return TrainState(zero(), params, copied(), optimizer.init(params), zero(), named)


def training_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    normalized_log_nsr: NoiseLevel | None = None,
    microbatches: int = 1,
    averages: Mapping[str, float] | None = None,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """(state, batch, root key[, replica]) -> (next state, metrics), a pure function over the global batch.

    A batch is any tree of arrays with one row for every example. `loss_fn(params, keys, batch)` gives the loss of each
    example and `normalized_log_nsr(keys)` its log noise-to-signal ratio, 0 at t_min and 1 at t_max. Row i of the batch
    of step n always has the same key. The gradient is that of the mean over the batch, summed over `microbatches`
    equal parts of it. An update that is not finite is skipped and counted. `averages` are decays of more averages of
    the parameters, by their names in the state.
    """

    def objective(params: PyTree, keys: Any, batch: PyTree) -> tuple[Array, tuple[Array, Array]]:
        losses = loss_fn(params, keys, batch)
        return jnp.mean(losses), _per_level(
            losses, normalized_log_nsr(keys) if normalized_log_nsr else jnp.zeros(len(losses))
        )

    def step(state: TrainState, batch: PyTree, key: Any, replica: Replica = ALONE) -> tuple[TrainState, StepMetrics]:
        length = len(jax.tree.leaves(batch)[0])
        rows = replica.number * length + jnp.arange(length)
        keys = prng.per_image(jax.random.fold_in(key, state.step), rows)
        gradient_fn = functools.partial(jax.value_and_grad(objective, has_aux=True), as_tree(state.params))

        def part(keys: Any, batch: PyTree) -> PyTree:
            value, gradient = gradient_fn(keys, batch)
            return value, in_form_of(state.params, gradient)

        (loss, levels), gradients = replica.all_mean(_mean_over_parts(part, microbatches, keys, batch))
        grad_norm = optax.tree.norm(gradients)

        def skip(state: TrainState) -> tuple[TrainState, Array]:
            return state.replace(skipped=state.skipped + 1), jnp.full_like(grad_norm, jnp.nan)

        advance = functools.partial(_advanced, optimizer, gradients, ema_decay, averages or {})
        advanced, update_norm = _either(jnp.isfinite(loss) & jnp.isfinite(grad_norm), advance, skip, state)
        level_loss, level_count = levels
        return advanced.replace(step=state.step + 1), StepMetrics(
            loss=loss,
            grad_norm=grad_norm,
            # Norm of the new parameters: reading the old ones would block in-place updates.
            param_norm=optax.tree.norm(advanced.params),
            update_norm=update_norm,
            level_loss=level_loss,
            level_count=level_count,
            skipped=advanced.skipped,
        )

    return step


def _advanced(
    optimizer: optax.GradientTransformation,
    gradients: PyTree,
    ema_decay: float,
    averages: Mapping[str, float],
    state: TrainState,
) -> tuple[TrainState, Array]:
    """The state after an update, whose step is counted elsewhere, and the norm of the update."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    def averaged(average: PyTree, decay: float) -> PyTree:
        # In this form the average of what never changes is exactly it, and at decay 0 it is the last step.
        return jax.tree.map(lambda new, old: new + decay * (old - new), params, average)

    advanced = state.replace(
        params=params,
        ema_params=averaged(state.ema_params, ema_decay),
        opt_state=opt_state,
        averages={name: averaged(state.averages[name], decay) for name, decay in averages.items()},
    )
    return advanced, optax.tree.norm(updates)


def several_steps(step: Callable[..., tuple[TrainState, StepMetrics]]) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """(state, batches, key[, replica]) -> (state, metrics) of one step for each of the stacked batches."""

    def steps(state: TrainState, batches: PyTree, key: Any, replica: Replica = ALONE) -> tuple[TrainState, StepMetrics]:
        def body(state: TrainState, batch: PyTree) -> tuple[TrainState, StepMetrics]:
            return step(state, batch, key, replica)

        return _loop(body, state, batches)

    return steps


def _per_level(losses: Float[Array, " batch"], levels: Float[Array, " batch"]) -> tuple[Array, Array]:
    """Return the sum and the number of the losses in each bin of noise levels."""
    bins = jnp.clip(jnp.floor(levels * NUM_BINS).astype(jnp.int32), 0, NUM_BINS - 1)
    indicator = jax.nn.one_hot(bins, NUM_BINS)
    counted = jax.lax.stop_gradient(losses)[:, None] * indicator
    return counted.sum(0), indicator.sum(0)


def _mean_over_parts(function: Callable[..., PyTree], parts: int, *batched: PyTree) -> PyTree:
    """Mean of function(*part) over equal parts of the batch.

    Part j takes rows j, j + parts, ...: rows of one device stay on it.
    """
    if parts == 1:
        return function(*batched)
    stacked = jax.tree.map(lambda rows: jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0), batched)

    def body(total: PyTree, part: tuple[PyTree, ...]) -> tuple[PyTree, tuple]:
        return jax.tree.map(jnp.add, total, function(*part)), ()

    shapes = jax.eval_shape(function, *jax.tree.map(lambda parts: parts[0], stacked))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = _loop(body, zeros, stacked)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def _loop(body: Callable[..., tuple[PyTree, PyTree]], carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan`, but unrolled on a CPU, where a loop makes the gradients of convolutions slow.

    `benchmarks/conv_in_scan.py` measures it.
    """
    if not on_cpu():
        return jax.lax.scan(body, carry, inputs)
    outputs = []
    for i in range(len(jax.tree.leaves(inputs)[0])):
        carry, output = body(carry, jax.tree.map(lambda leaf, i=i: leaf[i], inputs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *outputs)


def _either(
    condition: Bool[Array, ""], yes: Callable[[PyTree], PyTree], no: Callable[[PyTree], PyTree], state: PyTree
) -> PyTree:
    """`jax.lax.cond` on a CPU, where it updates the state in place; elsewhere a selection of each value, which needs no
    synchronization with the host.
    """
    if on_cpu():
        return jax.lax.cond(condition, yes, no, state)
    return jax.tree.map(functools.partial(jnp.where, condition), yes(state), no(state))

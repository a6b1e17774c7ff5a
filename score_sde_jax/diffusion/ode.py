"""Ordinary differential equations dy/dt = velocity(y, t), solved for every image of a batch by itself, on the device.

The method is the pair of orders 5 and 4 of Dormand and Prince (J. Comp. Appl. Math. 6, 1980) with the step sizes of
Hairer, Norsett and Wanner (Solving Ordinary Differential Equations I, Section II.4), which is also what scipy's RK45
does; an image takes the same steps here as there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

State = PyTree[Float[Array, "batch ..."]]
Numbers = Float[Array, " batch"]
Flags = Bool[Array, " batch"]
Velocity = Callable[[State, Numbers], State]

NODES = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
STAGES = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [1 / 5, 0, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    ]
)  # the last stage is the result of order 5, whose slope begins the next step
FOURTH_ORDER = np.array([5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40])
NFE_PER_STEP, NFE_AT_START = 6, 2
"""Evaluations of a step, accepted or not, and those that find the first slope and step size."""


class Solution(NamedTuple):
    """State at the end, built as that at the start, evaluations for every image, and whether it got to the end."""

    state: Any
    nfe: Int[Array, " batch"]
    converged: Flags


class _Way(NamedTuple):
    """Where every image is: time, state, slope there, size of its next step, and how its last step went."""

    t: Numbers
    state: State
    slope: State
    size: Numbers
    nfe: Int[Array, " batch"]
    rejected: Flags
    lost: Flags


def dormand_prince(
    velocity: Velocity,
    state: State,
    start: Float[Array, ""] | float,
    end: Float[Array, ""] | float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10000,
) -> Solution:
    """Solve dy/dt = velocity(y, t) from time `start` to `end`, which may be the earlier one.

    `state` is a pytree of floats with the batch as first axis of every leaf; the velocity gets it with one time for
    every image. Every image has its own time and step size, so its result does not depend on the others; one that has
    arrived stays while the rest go on. A step is accepted where the root mean square, over all numbers of the image's
    state, of error / (atol + rtol |y|) is below 1.
    An image stops before the end, `converged` being False there and the state the last one that was accepted, when
    another step would take more than `max_evaluations` in all, or when no step that the time resolves is accepted
    (a velocity that is not finite, a tolerance below the rounding errors). What to do then is the caller's.
    Raises ValueError for tolerances that are not above 0, or too few evaluations for one step.
    """
    check_options(rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    leaf = jax.tree.leaves(state)[0]
    start, end = (jnp.full(len(leaf), time, leaf.dtype) for time in (start, end))
    norm = partial(_norm, rtol=rtol, atol=atol)
    slope, size = _start(velocity, state, start, end, norm)

    def going(way: _Way) -> Flags:
        return (way.t != end) & ~way.lost & (way.nfe + NFE_PER_STEP <= max_evaluations)

    def step(way: _Way) -> _Way:
        active = going(way)
        smallest = 10 * jnp.finfo(way.t.dtype).eps * jnp.abs(way.t)
        left, size = jnp.abs(end - way.t), jnp.maximum(way.size, smallest)
        last = size >= left
        size = jnp.where(active, jnp.minimum(size, left), 0)
        moved, slope, error = dormand_prince_step(velocity, way.state, way.slope, way.t, jnp.sign(end - way.t) * size)
        error = norm(error, way.state, moved)
        good = error < 1  # not where the error is not a number
        factor = 0.9 * jnp.maximum(error, 1e-10) ** -0.2
        grown = jnp.minimum(factor, jnp.where(way.rejected, 1, 10))
        shrunk = jnp.where(jnp.isfinite(error), jnp.maximum(factor, 0.2), 0.2)
        accepted = active & good
        return _Way(
            t=jnp.where(accepted, jnp.where(last, end, way.t + jnp.sign(end - way.t) * size), way.t),
            state=_where(accepted, moved, way.state),
            slope=_where(accepted, slope, way.slope),
            size=jnp.where(active, size * jnp.where(good, grown, shrunk), way.size),
            nfe=way.nfe + NFE_PER_STEP * active,
            rejected=jnp.where(active, ~good, way.rejected),
            lost=way.lost | (active & ~good & (size <= smallest)),
        )

    never = jnp.zeros(len(start), bool)
    way = _Way(start, state, slope, size, jnp.full(len(start), NFE_AT_START, jnp.int32), never, never)
    way = jax.lax.while_loop(lambda way: jnp.any(going(way)), step, way)
    return Solution(way.state, way.nfe, way.t == end)


def dormand_prince_step(
    velocity: Velocity, state: State, slope: State, t: Numbers, size: Numbers
) -> tuple[State, State, State]:
    """One step of a size that every image gives (below 0 for backwards): the state after it by the method of order 5,
    the slope there, and the difference from the method of order 4. `slope` is that at the start of the step.
    """

    def stage(carry: tuple[PyTree, State], row: tuple[Array, Array, Array]) -> tuple[tuple[PyTree, State], None]:
        (slopes, _), (i, node, weights) = carry, row
        moved = _move(state, size, _combine(weights, slopes))
        slope = velocity(moved, t + node.astype(t.dtype) * size)
        slopes = jax.tree.map(lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, i, 0), slopes, slope)
        return (slopes, moved), None

    # Stage after stage in a scan, so that the velocity is compiled once and not six times.
    slopes = jax.tree.map(lambda dy: jnp.zeros((len(NODES), *dy.shape), dy.dtype).at[0].set(dy), slope)
    rows = jnp.arange(1, len(NODES)), jnp.asarray(NODES[1:]), jnp.asarray(STAGES[1:])
    (slopes, moved), _ = jax.lax.scan(stage, (slopes, state), rows)
    difference = _combine(jnp.asarray(STAGES[-1] - FOURTH_ORDER), slopes)
    error = jax.tree.map(lambda dy: _columns(size, dy) * dy, difference)
    return moved, jax.tree.map(lambda dy: dy[-1], slopes), error


def check_options(*, rtol: float, atol: float, max_evaluations: int) -> None:
    """Raise ValueError for options that `dormand_prince` cannot take."""
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol={rtol} and atol={atol} must be above 0")
    if max_evaluations < NFE_AT_START + NFE_PER_STEP:
        raise ValueError(
            f"max_evaluations={max_evaluations}: at least {NFE_AT_START + NFE_PER_STEP}, those of one step"
        )


def _start(
    velocity: Velocity, state: State, start: Numbers, end: Numbers, norm: Callable[..., Numbers]
) -> tuple[State, Numbers]:
    """The slope at the start and the size of the first step, after a look at how fast the slope changes."""
    direction, length = jnp.sign(end - start), jnp.abs(end - start)

    def look(carry: tuple[State, Numbers], _: None) -> tuple[tuple[State, Numbers], tuple[State, Numbers]]:
        """First at the start, then after an Euler step that moves by a hundredth of the state."""
        slope, size = carry
        slope = velocity(_move(state, direction * size, slope), start + direction * size)
        offset, rate = norm(state, state), norm(slope, state)
        size = jnp.minimum(jnp.where((offset < 1e-5) | (rate < 1e-5), 1e-6, 0.01 * offset / rate), length)
        return (slope, size), (slope, size)

    nothing = jax.tree.map(jnp.zeros_like, state), jnp.zeros_like(start)
    slopes, sizes = jax.lax.scan(look, nothing, None, length=2)[1]
    first, second = (jax.tree.map(lambda dy, i=i: dy[i], slopes) for i in (0, 1))
    size = sizes[0]
    change = norm(jax.tree.map(jnp.subtract, second, first), state) / jnp.where(size > 0, size, 1)
    rate = jnp.maximum(norm(first, state), change)
    found = jnp.where(rate <= 1e-15, jnp.maximum(1e-6, 1e-3 * size), (0.01 / rate) ** 0.2)
    return first, jnp.where(jnp.isfinite(found), jnp.minimum(found, 100 * size), 0)


def _norm(error: State, *at: State, rtol: float, atol: float) -> Numbers:
    """Root mean square of error / (atol + rtol |y|) for every image, with the largest |y| of the states `at`."""

    def square(error: Array, *at: Array) -> Array:
        largest = jnp.max(jnp.abs(jnp.stack(at)), axis=0)
        return jnp.sum(jnp.reshape((error / (atol + rtol * largest)) ** 2, (len(error), -1)), axis=1)

    squares = jax.tree.leaves(jax.tree.map(square, error, *at))
    return jnp.sqrt(sum(squares) * len(squares[0]) / sum(leaf.size for leaf in jax.tree.leaves(error)))


def _move(state: State, size: Numbers, slope: State) -> State:
    return jax.tree.map(lambda y, dy: y + _columns(size, y) * dy, state, slope)


def _columns(values: Shaped[Array, " batch"], like: Float[Array, "batch ..."]) -> Shaped[Array, "..."]:
    """One value per image, shaped to go with a leaf of the state."""
    return jnp.reshape(values, (-1,) + (1,) * (like.ndim - 1))


def _where(chosen: Flags, new: State, old: State) -> State:
    return jax.tree.map(lambda n, o: jnp.where(_columns(chosen, o), n, o), new, old)


def _combine(weights: Float[Array, " stages"], slopes: PyTree[Float[Array, "stages batch ..."]]) -> State:
    """Weighted sum of slopes; not a matrix product, which accelerators round to fewer digits."""
    return jax.tree.map(lambda dy: jnp.sum(_columns(weights.astype(dy.dtype), dy) * dy, axis=0), slopes)

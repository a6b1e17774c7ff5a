"""Adaptive solver of ordinary differential equations dy/dt = velocity(y, t), independent per image, on the device.

The method is the embedded Runge-Kutta pair of orders 5 and 4 of Dormand and Prince (J. Comp. Appl. Math. 6, 1980). Its
step sizes are those of Hairer, Norsett and Wanner (Solving Ordinary Differential Equations I, Section II.4). It takes
the same steps as scipy's RK45 (`tests/diffusion/test_ode.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from score_sde_jax.ranges import Positive, Range

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
)  # The last stage is the result of order 5, so its slope is the first slope of the next step.
FOURTH_ORDER = np.array([5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40])
NFE_PER_STEP, NFE_AT_START = 6, 2
"""Evaluations of the velocity in a step, accepted or rejected, and before the first step."""
Evaluations = Annotated[int, Range(NFE_AT_START + NFE_PER_STEP, 2**31)]
"""Largest number of evaluations of an adaptive solver, which suffices for one step."""


class Solution(NamedTuple):
    """Result of `dormand_prince`.

    Attributes:
        state: state at the end time, or the last accepted state of an image that did not converge.
        nfe: number of evaluations of the velocity for each image.
        converged: whether the solver reached the end time for each image.
    """

    state: Any
    nfe: Int[Array, " batch"]
    converged: Flags


class _SolverState(NamedTuple):
    """Solver state of every image: time, state, slope, next step size, NFE, and how its last step ended."""

    t: Numbers
    state: State
    slope: State
    size: Numbers
    nfe: Int[Array, " batch"]
    rejected: Flags
    failed: Flags


def dormand_prince(
    velocity: Velocity,
    state: State,
    start: Float[Array, ""] | float,
    end: Float[Array, ""] | float,
    *,
    rtol: Positive = 1e-5,
    atol: Positive = 1e-5,
    max_evaluations: Evaluations = 10000,
) -> Solution:
    """Solve dy/dt = velocity(y, t) from time `start` to time `end`.

    Every image has its own time and step sizes, so its result does not depend on the rest of the batch. A step is
    accepted if the root mean square of error / (atol + rtol |y|) over the state of the image is below 1. An image stops
    early, with `converged` False, if the next step would exceed `max_evaluations`, or if the smallest step that the
    time resolves is rejected: the velocity is not finite, or the tolerance is below the rounding error.

    Args:
        velocity: function (y, t) -> dy/dt of the states and one time per image.
        state: initial state, a pytree whose leaves have the batch as their first axis.
        start: initial time.
        end: final time, before or after `start`.
        rtol: relative tolerance; positive.
        atol: absolute tolerance, in units of y; positive.
        max_evaluations: upper bound on the NFE of each image, at least 8.

    Raises:
        ValueError: rtol, atol or max_evaluations is out of range.
    """
    check_options(rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    leaf = jax.tree.leaves(state)[0]
    start, end = (jnp.full(len(leaf), time, leaf.dtype) for time in (start, end))
    norm = partial(_norm, rtol=rtol, atol=atol)
    slope, size = _initial_step(velocity, state, start, end, norm)

    def is_active(solver: _SolverState) -> Flags:
        return (solver.t != end) & ~solver.failed & (solver.nfe + NFE_PER_STEP <= max_evaluations)

    def step(solver: _SolverState) -> _SolverState:
        return _adaptive_step(velocity, solver, end, is_active(solver), norm)

    false = jnp.zeros(len(start), bool)
    solver = _SolverState(start, state, slope, size, jnp.full(len(start), NFE_AT_START, jnp.int32), false, false)
    solver = jax.lax.while_loop(lambda solver: jnp.any(is_active(solver)), step, solver)
    return Solution(solver.state, solver.nfe, solver.t == end)


def _adaptive_step(
    velocity: Velocity, solver: _SolverState, end: Numbers, active: Flags, norm: Callable[..., Numbers]
) -> _SolverState:
    """Try one step of the active images, and set the size of the next one."""
    smallest = 10 * jnp.finfo(solver.t.dtype).eps * jnp.abs(solver.t)
    remaining, size = jnp.abs(end - solver.t), jnp.maximum(solver.size, smallest)
    is_last = size >= remaining
    size = jnp.where(active, jnp.minimum(size, remaining), 0)
    signed_size = jnp.sign(end - solver.t) * size
    new_state, slope, error = dormand_prince_step(velocity, solver.state, solver.slope, solver.t, signed_size)
    error = norm(error, solver.state, new_state)
    passed = error < 1  # False if the error is NaN.
    factor = 0.9 * jnp.maximum(error, 1e-10) ** -0.2
    growth = jnp.minimum(factor, jnp.where(solver.rejected, 1, 10))
    reduction = jnp.where(jnp.isfinite(error), jnp.maximum(factor, 0.2), 0.2)
    accepted = active & passed
    return _SolverState(
        t=jnp.where(accepted, jnp.where(is_last, end, solver.t + signed_size), solver.t),
        state=_where(accepted, new_state, solver.state),
        slope=_where(accepted, slope, solver.slope),
        size=jnp.where(active, size * jnp.where(passed, growth, reduction), solver.size),
        nfe=solver.nfe + NFE_PER_STEP * active,
        rejected=jnp.where(active, ~passed, solver.rejected),
        failed=solver.failed | (active & ~passed & (size <= smallest)),
    )


def dormand_prince_step(
    velocity: Velocity, state: State, slope: State, t: Numbers, size: Numbers
) -> tuple[State, State, State]:
    """Take one step of a given size for each image.

    Args:
        velocity: function (y, t) -> dy/dt.
        state: state at the start of the step.
        slope: velocity at the start of the step.
        t: time of each image.
        size: step size of each image; negative for steps backward in time.

    Returns:
        The state after the step by the method of order 5, the velocity there, and the difference from the method of
        order 4, which estimates the error.
    """

    def stage(carry: tuple[PyTree, State], row: tuple[Array, Array, Array]) -> tuple[tuple[PyTree, State], None]:
        (slopes, _), (i, node, weights) = carry, row
        stage_state = _advance(state, size, _combine(weights, slopes))
        slope = velocity(stage_state, t + node.astype(t.dtype) * size)
        slopes = jax.tree.map(lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, i, 0), slopes, slope)
        return (slopes, stage_state), None

    # The stages run in a scan, so the velocity is compiled once instead of six times.
    slopes = jax.tree.map(lambda dy: jnp.zeros((len(NODES), *dy.shape), dy.dtype).at[0].set(dy), slope)
    rows = jnp.arange(1, len(NODES)), jnp.asarray(NODES[1:]), jnp.asarray(STAGES[1:])
    (slopes, new_state), _ = jax.lax.scan(stage, (slopes, state), rows)
    difference = _combine(jnp.asarray(STAGES[-1] - FOURTH_ORDER), slopes)
    error = jax.tree.map(lambda dy: _bcast(size, dy) * dy, difference)
    return new_state, jax.tree.map(lambda dy: dy[-1], slopes), error


def check_options(*, rtol: float, atol: float, max_evaluations: int) -> None:
    """Check the options of `dormand_prince`.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_evaluations: upper bound on the NFE.

    Raises:
        ValueError: a tolerance is not positive, or max_evaluations is below the NFE of one step.
    """
    for name, tolerance in {"rtol": rtol, "atol": atol}.items():
        if not tolerance > 0:
            raise ValueError(f"{name} must be > 0, got {tolerance}")
    if max_evaluations < NFE_AT_START + NFE_PER_STEP:
        raise ValueError(f"max_evaluations must be >= {NFE_AT_START + NFE_PER_STEP}, got {max_evaluations}")


def _initial_step(
    velocity: Velocity, state: State, start: Numbers, end: Numbers, norm: Callable[..., Numbers]
) -> tuple[State, Numbers]:
    """Return the first slope and the first step size, from an estimate of the second derivative."""
    direction, length = jnp.sign(end - start), jnp.abs(end - start)

    def probe(carry: tuple[State, Numbers], _: None) -> tuple[tuple[State, Numbers], tuple[State, Numbers]]:
        """Evaluate the slope first at the start, then after an Euler step of a hundredth of the state."""
        slope, size = carry
        slope = velocity(_advance(state, direction * size, slope), start + direction * size)
        offset, rate = norm(state, state), norm(slope, state)
        size = jnp.minimum(jnp.where((offset < 1e-5) | (rate < 1e-5), 1e-6, 0.01 * offset / rate), length)
        return (slope, size), (slope, size)

    zeros = jax.tree.map(jnp.zeros_like, state), jnp.zeros_like(start)
    slopes, sizes = jax.lax.scan(probe, zeros, None, length=2)[1]
    first, second = (jax.tree.map(lambda dy, i=i: dy[i], slopes) for i in (0, 1))
    euler_size = sizes[0]
    change = norm(jax.tree.map(jnp.subtract, second, first), state) / jnp.where(euler_size > 0, euler_size, 1)
    rate = jnp.maximum(norm(first, state), change)
    size = jnp.where(rate <= 1e-15, jnp.maximum(1e-6, 1e-3 * euler_size), (0.01 / rate) ** 0.2)
    return first, jnp.where(jnp.isfinite(size), jnp.minimum(size, 100 * euler_size), 0)


def _norm(error: State, *states: State, rtol: float, atol: float) -> Numbers:
    """Return the RMS of error / (atol + rtol |y|) of each image, with the largest |y| of the states."""

    def square(error: Array, *states: Array) -> Array:
        largest = jnp.max(jnp.abs(jnp.stack(states)), axis=0)
        return jnp.sum(jnp.reshape((error / (atol + rtol * largest)) ** 2, (len(error), -1)), axis=1)

    squares = jax.tree.leaves(jax.tree.map(square, error, *states))
    return jnp.sqrt(sum(squares) * len(squares[0]) / sum(leaf.size for leaf in jax.tree.leaves(error)))


def _advance(state: State, size: Numbers, slope: State) -> State:
    """Return the state after an Euler step."""
    return jax.tree.map(lambda y, dy: y + _bcast(size, y) * dy, state, slope)


def _bcast(values: Shaped[Array, " batch"], like: Float[Array, "batch ..."]) -> Shaped[Array, "..."]:
    """Reshape one value per image so that it broadcasts over a leaf of the state."""
    return jnp.reshape(values, (-1,) + (1,) * (like.ndim - 1))


def _where(accepted: Flags, new: State, old: State) -> State:
    """Select the new state of the accepted images and the old state of the others."""
    return jax.tree.map(lambda n, o: jnp.where(_bcast(accepted, o), n, o), new, old)


def _combine(weights: Float[Array, " stages"], slopes: PyTree[Float[Array, "stages batch ..."]]) -> State:
    """Return the weighted sum of slopes; a matrix product would have reduced precision on accelerators."""
    return jax.tree.map(lambda dy: jnp.sum(_bcast(weights.astype(dy.dtype), dy) * dy, axis=0), slopes)

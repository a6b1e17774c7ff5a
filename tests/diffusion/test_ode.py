"""The ODE solver against scipy and closed forms: orders of convergence, and independence of the images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from score_sde_jax.diffusion.ode import (
    FOURTH_ORDER,
    NFE_AT_START,
    NFE_PER_STEP,
    NODES,
    STAGES,
    dormand_prince,
    dormand_prince_step,
)

# One equation per image: a spring whose stiffness grows with time; stiffer springs for later images.
STIFFNESS = np.array([0.3, 2.0, 30.0, 400.0])
STARTS = np.array([[1.0, 0.0], [0.5, -2.0], [3.0, 1.0], [-1.0, 4.0]])


def spring(y, t):
    """dx/dt = v, dv/dt = -k (1 + t) x - x^3, as a state of two leaves."""
    k = jnp.asarray(STIFFNESS, t.dtype)[: len(t)]
    return {"x": y["v"], "v": -(k * (1 + t))[:, None] * y["x"] - y["x"] ** 3}


# Compiled once for all times and all tests.
solve = jax.jit(functools.partial(dormand_prince, spring), static_argnames=["rtol", "atol", "max_evaluations"])


def begin(dtype=None):
    x, v = jnp.asarray(STARTS, dtype).T
    return {"x": x[:, None], "v": v[:, None]}


def on_the_host(i, start, end, **tolerances):
    def velocity(t, y):
        return [y[1], -STIFFNESS[i] * (1 + t) * y[0] - y[0] ** 3]

    return solve_ivp(velocity, (start, end), STARTS[i], method="RK45", **tolerances)


def test_the_tableau_is_of_orders_5_and_4():
    """The weights satisfy the quadrature conditions of their order, and each row sums to its node."""
    np.testing.assert_allclose(STAGES.sum(axis=1), NODES, atol=1e-14)
    for weights, order in ((STAGES[-1], 5), (FOURTH_ORDER, 4)):
        for power in range(order):
            assert np.dot(weights, NODES**power) == pytest.approx(1 / (power + 1))
        assert np.dot(weights, NODES**order) != pytest.approx(1 / (order + 1), rel=1e-3)


@pytest.mark.parametrize("end", [2.0, -0.5])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-9])
def test_every_image_takes_the_steps_of_scipy(end, tolerance, x64):
    """The same result and the same number of evaluations, forward and backward in time."""
    solution = solve(begin(), 0.3, end, rtol=tolerance, atol=tolerance)
    assert solution.converged.all()
    for i in range(len(STIFFNESS)):
        expected = on_the_host(i, 0.3, end, rtol=tolerance, atol=tolerance)
        assert int(solution.nfe[i]) == expected.nfev
        got = [solution.state["x"][i, 0], solution.state["v"][i, 0]]
        np.testing.assert_allclose(got, expected.y[:, -1], rtol=1e-6)
    assert len(set(np.asarray(solution.nfe))) == len(STIFFNESS)


def test_steps_at_a_jump_are_those_of_scipy(x64):
    """Steps are rejected several times, which limits the growth of the next step."""

    def jump(y, t):
        return jnp.where(t < 0.7, 1.0, 100.0)[:, None] - y

    def host(t, y):
        return (1.0 if t < 0.7 else 100.0) - y

    expected = solve_ivp(host, (0.0, 1.0), [0.0], method="RK45", rtol=1e-6, atol=1e-6)
    solution = jax.jit(lambda y: dormand_prince(jump, y, 0.0, 1.0, rtol=1e-6, atol=1e-6))(jnp.zeros((1, 1)))
    assert int(solution.nfe[0]) == expected.nfev
    assert NFE_PER_STEP * (len(expected.t) - 1) + NFE_AT_START < expected.nfev  # some were rejected
    np.testing.assert_allclose(solution.state[0], expected.y[:, -1], rtol=1e-6)


def test_an_image_does_not_depend_on_the_others():
    together = solve(begin(), 0.0, 2.0)
    for i in (0, 1):  # images with soft springs finish first
        alone = solve(jax.tree.map(lambda y, i=i: y[: i + 1], begin()), 0.0, 2.0)
        np.testing.assert_allclose(alone.state["x"][i], together.state["x"][i], rtol=1e-6)
        assert alone.nfe[i] == together.nfe[i]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_error_is_of_the_size_of_the_tolerance(dtype, x64):
    """dy/dt = cos(t) y: y = exp(sin t)."""

    def velocity(y, t):
        return jnp.cos(t)[:, None] * y

    for tolerance in (1e-3, 1e-5) + ((1e-9,) if dtype == jnp.float64 else ()):
        y = jnp.ones((2, 3), dtype)
        options = dict(rtol=tolerance, atol=tolerance)
        solution = jax.jit(functools.partial(dormand_prince, velocity, **options))(y, 0.0, 6.0)
        assert solution.state.dtype == dtype and solution.converged.all()
        error = np.max(np.abs(np.asarray(solution.state) - np.exp(np.sin(6.0))))
        assert error < 10 * tolerance


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_there_and_back_again(dtype, x64):
    start = begin(dtype)
    there = solve(start, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    back = solve(there.state, 1.0, 0.0, rtol=1e-6, atol=1e-6)
    for name in start:
        np.testing.assert_allclose(back.state[name], start[name], atol=1e-3)
        assert not np.allclose(there.state[name], start[name], atol=0.1)


def test_steps_of_one_size_converge_with_order_5_and_know_their_error(x64):
    def velocity(y, t):
        return jnp.cos(t)[:, None] * y

    step = jax.jit(functools.partial(dormand_prince_step, velocity))
    global_errors, local_errors = [], []
    for steps in (16, 32):
        t, y, size = jnp.zeros(1), jnp.ones((1, 1)), jnp.full(1, 3.0 / steps)
        slope = velocity(y, t)
        for _ in range(steps):
            y, slope, _ = step(y, slope, t, size)
            t = t + size
            np.testing.assert_allclose(slope, velocity(y, t), rtol=1e-12)
        global_errors.append(abs(float(y[0, 0]) - np.exp(np.sin(3.0))))
        first = step(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1), size)
        local_errors.append(abs(float(first[2][0, 0])))
    assert np.log2(global_errors[0] / global_errors[1]) == pytest.approx(5, abs=0.3)
    assert np.log2(local_errors[0] / local_errors[1]) == pytest.approx(5, abs=0.3)  # of order 4, in one step


def test_evaluations_are_the_calls_of_the_velocity():
    calls = []

    def velocity(y, t):
        jax.debug.callback(lambda: calls.append(1))
        return -y

    solution = jax.jit(functools.partial(dormand_prince, velocity))(jnp.ones((1, 2)), 0.0, 1.0)
    jax.effects_barrier()
    assert len(calls) == int(solution.nfe[0]) and (len(calls) - NFE_AT_START) % NFE_PER_STEP == 0


def test_images_that_run_out_of_evaluations_say_so():
    full = solve(begin(), 0.0, 2.0)
    limit = int(full.nfe[1])
    cut = solve(begin(), 0.0, 2.0, max_evaluations=limit)
    np.testing.assert_array_equal(cut.converged, [True, True, False, False])
    assert np.all(cut.nfe <= limit) and np.all(cut.nfe[2:] > limit - NFE_PER_STEP)
    np.testing.assert_array_equal(cut.state["x"][:2], full.state["x"][:2])


def test_a_velocity_that_is_not_finite_ends_its_own_image_alone():
    def velocity(y, t):
        return jnp.where(jnp.arange(3)[:, None] == 1, jnp.nan, -y)

    solution = jax.jit(lambda y: dormand_prince(velocity, y, 1.0, 2.0))(jnp.ones((3, 2)))
    np.testing.assert_array_equal(solution.converged, [True, False, True])
    np.testing.assert_allclose(solution.state[::2], np.exp(-1), rtol=1e-4)
    np.testing.assert_array_equal(solution.state[1], 1)  # the state before the failed step
    assert solution.nfe[1] < 100


def test_no_time_is_no_step():
    solution = solve(begin(), 0.5, 0.5)
    assert solution.converged.all() and np.all(solution.nfe == NFE_AT_START)
    np.testing.assert_array_equal(solution.state["x"], begin()["x"])


@pytest.mark.parametrize("wrong", [{"rtol": 0.0}, {"atol": -1e-5}, {"max_evaluations": 7}])
def test_options_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dormand_prince(spring, begin(), 0.0, 1.0, **wrong)

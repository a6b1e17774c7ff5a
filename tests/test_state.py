"""The training step on a model small enough to follow by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_sde_jax import keys as prng
from score_sde_jax.state import init_state, training_step

RATE, DECAY = 0.1, 0.9


def loss_fn(params, keys, x0):
    """A linear model of data plus noise of each row's own key: 1/2 (w (x + eps) - 1)^2."""
    return 0.5 * (params["w"] * (x0 + prng.normal(keys, x0)) - 1)[:, 0] ** 2


def test_one_step_by_hand():
    optimizer = optax.sgd(RATE)
    state = init_state({"w": jnp.asarray(2.0)}, optimizer)
    x0, root = jnp.arange(6.0).reshape(6, 1), jax.random.key(3)
    step = jax.jit(training_step(loss_fn, optimizer, DECAY))
    for n in range(3):
        row_keys = [jax.random.fold_in(jax.random.fold_in(root, n), i) for i in range(6)]
        y = np.array([x0[i] + jax.random.normal(k, (1,)) for i, k in enumerate(row_keys)])[:, 0]
        w, ema = float(state.params["w"]), float(state.ema_params["w"])
        gradient = np.mean((w * y - 1) * y)
        state, metrics = step(state, x0, root)
        np.testing.assert_allclose(metrics.loss, np.mean(0.5 * (w * y - 1) ** 2), rtol=1e-5)
        np.testing.assert_allclose(metrics.grad_norm, abs(gradient), rtol=1e-5)
        np.testing.assert_allclose(state.params["w"], w - RATE * gradient, rtol=1e-5)
        np.testing.assert_allclose(state.ema_params["w"], DECAY * ema + (1 - DECAY) * (w - RATE * gradient), rtol=1e-5)
        assert int(state.step) == n + 1

"""The training step on a model small enough to follow by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde_jax import keys as prng
from score_sde_jax.optimizer import OPTIMIZERS, learning_rate_schedule
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


def test_the_average_starts_at_the_parameters_and_nothing_is_shared():
    params = {"w": jnp.asarray(2.0)}
    state = init_state(params, optax.sgd(RATE))
    assert int(state.step) == 0 and state.ema_params["w"] == state.params["w"] == 2.0
    assert (
        state.ema_params["w"].unsafe_buffer_pointer() != state.params["w"].unsafe_buffer_pointer()
    )  # both are donated


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_average_of_many_steps(decay):
    """ema_n = decay^n w_0 + (1 - decay) sum decay^(n - k) w_k."""
    state = init_state({"w": jnp.asarray(2.0)}, optax.sgd(RATE))
    step, path = jax.jit(training_step(loss_fn, optax.sgd(RATE), decay)), []
    for _ in range(5):
        state, _ = step(state, jnp.ones((2, 1)), jax.random.key(0))
        path.append(float(state.params["w"]))
    expected = decay**5 * 2.0 + (1 - decay) * sum(decay ** (4 - k) * w for k, w in enumerate(path))
    assert float(state.ema_params["w"]) == pytest.approx(expected, rel=1e-5)


def adam_by_hand(w, gradients, rate, *, beta1, beta2, eps, weight_decay, clip):
    """Algorithm 1 of arXiv 1412.6980 in float64, with the decay of arXiv 1711.05101."""
    m = v = np.zeros_like(w)
    for n, g in enumerate(gradients, start=1):
        if clip is not None:
            g = g * min(1.0, clip / np.sqrt(np.sum(g**2)))
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
        w = w - rate(n - 1) * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * w)
    return w


@pytest.mark.parametrize(
    "options",
    [
        dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, clip=None),
        dict(beta1=0.5, beta2=0.9, eps=1e-1, weight_decay=0.3, clip=None),
        dict(beta1=0.9, beta2=0.99, eps=1e-3, weight_decay=0.0, clip=1.5),
    ],
)
def test_adam_by_hand(options):
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(4), rng.standard_normal((6, 4))
    schedule = learning_rate_schedule(0.1, 6, warmup_steps=2)
    renamed = {"gradient_clip" if key == "clip" else key: value for key, value in options.items()}
    optimizer = OPTIMIZERS["adam"](schedule, **renamed)
    params = jnp.asarray(w, jnp.float32)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
    expected = adam_by_hand(w, gradients, lambda n: 0.1 * min(n / 2, 1.0), **options)
    np.testing.assert_allclose(params, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_learning_rate_schedule(warmup, decay):
    schedule = learning_rate_schedule(0.3, 20, warmup_steps=warmup, decay=decay)
    for step in range(25):
        done = min(max(step - warmup, 0) / (20 - warmup), 1.0)
        peak = 0.3 * (min(step / warmup, 1.0) if warmup else 1.0)
        expected = peak * (0.5 * (1 + np.cos(np.pi * done)) if decay == "cosine" else 1.0)
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)

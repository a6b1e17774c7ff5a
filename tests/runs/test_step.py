"""The training step on a model that is small enough to compute by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde_jax import keys as prng
from score_sde_jax.networks.optimizer import OPTIMIZERS, learning_rate_schedule
from score_sde_jax.runs.step import NUM_BINS, init_state, several_steps, training_step

RATE, DECAY = 0.1, 0.9


def loss_fn(params, keys, x0):
    """A linear model of data plus noise of each row's own key: 1/2 (w (x + eps) - 1)^2."""
    return 0.5 * (params["w"] * (x0 + prng.normal(keys, x0)) - 1)[:, 0] ** 2


def test_one_step_by_hand():
    optimizer = optax.sgd(RATE)
    state = init_state({"w": jnp.asarray(2.0)}, optimizer)
    x0, root = np.arange(6, dtype=np.float32).reshape(6, 1), jax.random.key(3)
    noise = jax.jit(lambda key, n, i: jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, n), i), (1,)))
    step = jax.jit(training_step(loss_fn, optimizer, DECAY))
    for n in range(3):
        y = np.array([x0[i] + noise(root, n, i) for i in range(6)])[:, 0]
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


def test_several_steps_in_a_call_are_the_steps_one_by_one():
    state, root = init_state({"w": jnp.asarray(2.0)}, optax.adam(RATE)), jax.random.key(3)
    batches = jax.random.normal(jax.random.key(1), (3, 4, 1))
    step = training_step(loss_fn, optax.adam(RATE), DECAY)
    together, metrics = jax.jit(several_steps(step))(state, batches, root)
    for i, x0 in enumerate(batches):
        state, one = jax.jit(step)(state, x0, root)
        for stacked, alone in zip(metrics, one, strict=True):
            np.testing.assert_array_equal(stacked[i], alone)
    jax.tree.map(np.testing.assert_array_equal, together, state)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_microbatches_add_up_to_the_batch(parts, x64):
    x0, root = jnp.arange(6.0).reshape(6, 1), jax.random.key(3)
    results = []
    for microbatches in (1, parts):
        state = init_state({"w": jnp.asarray(2.0)}, optax.sgd(RATE))
        step = training_step(
            loss_fn, optax.sgd(RATE), DECAY, lambda keys: jnp.linspace(0, 0.99, len(keys)), microbatches
        )
        results.append(jax.jit(step)(state, x0, root))
    (state, metrics), (again, split) = results
    np.testing.assert_allclose(again.params["w"], state.params["w"], rtol=1e-12)
    np.testing.assert_allclose(split.loss, metrics.loss, rtol=1e-12)


@pytest.mark.parametrize("options", [dict(steps=3), dict(microbatches=2)])
def test_no_convolution_in_a_loop_on_a_cpu(options):
    """Its gradient would be many times slower there (benchmarks/conv_in_scan.py)."""

    def conv_loss(params, keys, x0):
        out = jax.lax.conv_general_dilated(x0, params["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean(out**2, axis=(1, 2, 3))

    step = training_step(conv_loss, optax.sgd(RATE), DECAY, microbatches=options.get("microbatches", 1))
    state = init_state({"w": jnp.ones((3, 3, 2, 2))}, optax.sgd(RATE))
    batches = jnp.ones((options.get("steps", 1), 4, 8, 8, 2))
    text = jax.jit(several_steps(step)).lower(state, batches, jax.random.key(0)).as_text()
    assert "stablehlo.convolution" in text and "stablehlo.while" not in text


def test_loss_per_noise_level_by_hand():
    levels = np.array([0.0, 0.05, 0.1, 0.55, 0.999, 1.0, -0.001])
    losses = np.arange(1.0, 8.0)
    step = training_step(
        lambda params, keys, x0: params["w"] * x0[:, 0], optax.sgd(RATE), DECAY, lambda keys: jnp.asarray(levels)
    )
    state = init_state({"w": jnp.asarray(1.0)}, optax.sgd(RATE))
    _, metrics = jax.jit(step)(state, losses[:, None], jax.random.key(0))
    sums, counts = np.zeros(NUM_BINS), np.zeros(NUM_BINS)
    for bin_, loss in zip([0, 0, 1, 5, 9, 9, 0], losses, strict=True):
        sums[bin_] += loss
        counts[bin_] += 1
    np.testing.assert_allclose(metrics.level_loss, sums)
    np.testing.assert_allclose(metrics.level_count, counts)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])  # the last one overflows in the gradient
def test_an_update_that_is_not_finite_is_left_out(bad, platform, monkeypatch):
    """The step is a branch on a CPU and a selection of each value elsewhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    optimizer = optax.adam(RATE)
    state = init_state({"w": jnp.asarray(2.0)}, optimizer)
    step = jax.jit(training_step(loss_fn, optimizer, DECAY))
    state, _ = step(state, jnp.ones((2, 1)), jax.random.key(0))
    after, metrics = step(state, jnp.asarray([[1.0], [bad]]), jax.random.key(0))
    assert int(after.step) == 2 and int(after.skipped) == int(metrics.skipped) == 1
    for part in ("params", "ema_params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, part), getattr(state, part))
    again, metrics = step(after, jnp.ones((2, 1)), jax.random.key(0))
    assert int(metrics.skipped) == 1 and again.params["w"] != after.params["w"]


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_an_update_is_left_out_where_the_loss_or_the_gradient_alone_is_not_finite(bad, platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)

    def loss_fn(params, keys, x0):
        if bad == "loss":
            return params["w"] * x0[:, 0] + jnp.inf * jax.lax.stop_gradient(x0[:, 0])
        return jnp.sqrt(jnp.abs(params["w"] - 2.0 * x0[:, 0]))  # 0, with an infinite slope

    state = init_state({"w": jnp.asarray(2.0)}, optax.sgd(RATE))
    after, metrics = jax.jit(training_step(loss_fn, optax.sgd(RATE), DECAY))(state, jnp.ones((2, 1)), jax.random.key(0))
    assert bool(np.isfinite(metrics.loss)) == (bad == "gradient")
    assert bool(np.isfinite(metrics.grad_norm)) == (bad == "loss")
    assert int(after.skipped) == int(metrics.skipped) == 1 and after.params["w"] == state.params["w"]


def test_the_state_is_changed_in_place():
    """No parameter, average or moment is copied: all reads of the old value precede the write of the new one."""
    optimizer = OPTIMIZERS["adam"](learning_rate_schedule(0.1, 6), gradient_clip=1.0)
    state = init_state({"w": jnp.ones((64, 1000))}, optimizer)
    step = training_step(lambda p, keys, x0: jnp.square(x0 @ p["w"]).mean(-1), optimizer, DECAY)
    compiled = jax.jit(step, donate_argnums=0).lower(state, jnp.ones((2, 64)), jax.random.key(0)).compile()
    assert "f32[64,1000]" in compiled.as_text()
    assert not re.search(r"f32\[64,1000\]\S* copy\(", compiled.as_text())


def test_norms_by_hand():
    params = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)}
    step = training_step(lambda p, keys, x0: x0[:, 0] * (p["a"].sum() + 2 * p["b"]), optax.sgd(RATE), DECAY)
    _, metrics = jax.jit(step)(init_state(params, optax.sgd(RATE)), jnp.ones((2, 1)), jax.random.key(0))
    np.testing.assert_allclose(metrics.param_norm, np.linalg.norm([3 - RATE, -RATE, 4 - 2 * RATE]), rtol=1e-6)
    np.testing.assert_allclose(metrics.grad_norm, np.sqrt(1 + 1 + 4))
    np.testing.assert_allclose(metrics.update_norm, RATE * np.sqrt(6), rtol=1e-6)


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
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient, jnp.float32), state, params)
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

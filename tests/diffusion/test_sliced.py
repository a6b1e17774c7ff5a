"""The sliced score matching loss: its formula, and its constant difference from the denoising loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import SHAPE, batch_keys, network, per_image
from closed_forms import SDE_CASES, SKEWED

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.losses import score_matching_loss, sliced_score_matching_loss
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS, Parameterization
from score_sde_jax.diffusion.sdes import VE, VP


def test_sliced_loss_of_ncsn(x64):
    """sigma^2 (v' grad s v + 1/2 |s|^2) at a level of the ladder: arXiv 1905.07088, annealed as in NCSN's code."""
    sde, drawn = VE(sigma_min=0.01, sigma_max=1.0), []
    wrapped = Parameterization(coefficients=PARAMETERIZATIONS["score"], condition=CONDITIONS["none"])
    noise_fn = wrapped.noise_fn(network, sde)

    def recording(x, t):
        drawn.append((x, t))
        return noise_fn(x, t)

    times = functools.partial(losses.ladder, num_levels=10)
    x0 = jax.random.normal(jax.random.key(4), SHAPE)
    options = dict(times=times, reduction=losses.half_sum)
    score_matching_loss(recording, sde, batch_keys(), x0, **options)
    loss = sliced_score_matching_loss(noise_fn, sde, batch_keys(), x0, **options)
    x, t = map(np.asarray, drawn[0])  # both losses have the same noisy images
    sigma = 0.01 * 100.0**t
    score, slope = np.sin(3 * x) + 0.3 * x**2 - 0.2, 3 * np.cos(3 * x) + 0.6 * x
    expected = sigma**2 * (slope + 0.5 * score**2)  # the Jacobian is diagonal and v is of signs: v' J v is its trace
    np.testing.assert_allclose(loss, per_image(expected, np.sum), rtol=1e-9)


@pytest.mark.parametrize("name", SDE_CASES)
def test_sliced_loss_is_the_denoising_loss_less_a_constant(name):
    """E sliced = E denoising - E w D / 2, for a network whose Jacobian is dense."""
    sde, dim = SDE_CASES[name][0], 6
    mix = jnp.asarray(np.random.default_rng(0).standard_normal((dim, dim)), jnp.float32)

    def noise_fn(x, t):
        return jnp.tanh(x @ mix) + 0.3 * x

    def weight(sde, t):
        return 1 / (1 + sde.sigma(t) ** 2)

    keys, x0 = batch_keys(8192), SKEWED.sample(jax.random.key(5), (8192, dim))
    options = dict(weight=weight, reduction=losses.half_sum)

    @jax.jit
    def three_losses(keys, x0):
        sliced = sliced_score_matching_loss(noise_fn, sde, keys, x0, num_projections=2, **options)
        denoising = score_matching_loss(noise_fn, sde, keys, x0, **options)
        return sliced, denoising, weight(sde, losses.uniform(sde, losses._keys(keys)[0])) * dim / 2

    sliced, denoising, constant = three_losses(keys, x0)
    difference = np.asarray(sliced - denoising + constant, np.float64)
    error = difference.std() / np.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error
    assert constant.mean() > 10 * error  # a wrong constant would be visible


def test_more_projections_are_a_mean_of_independent_ones():
    mix = jnp.asarray(np.random.default_rng(0).standard_normal((6, 6)), jnp.float32)
    where = (lambda x, t: x @ mix, VP(), batch_keys(2048), jnp.zeros((2048, 6)))
    spread = []
    for num in (0, 1, 4):
        # The mean of tr J is known, so the remaining spread is that of the projections.
        if num == 0:
            with pytest.raises(ValueError, match="num_projections"):
                sliced_score_matching_loss(*where, num_projections=num)
            continue
        x_t, _ = VP().perturb(losses._keys(where[2])[1], where[3], prng.bcast(t := _uniform_times(where[2]), where[3]))
        sigma = np.asarray(VP().sigma(t))
        options = dict(reduction=losses.half_sum, num_projections=num)
        loss = np.asarray(jax.jit(functools.partial(sliced_score_matching_loss, *where[:2], **options))(*where[2:]))
        trace = (0.5 * np.sum(np.asarray(x_t @ mix) ** 2, axis=1) - loss) / sigma
        assert trace.mean() == pytest.approx(float(jnp.trace(mix)), abs=4 * trace.std() / np.sqrt(2048))
        spread.append(trace.std())
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.1)


def _uniform_times(keys):
    return losses.uniform(VP(), losses._keys(keys)[0])


def test_gradient_of_the_sliced_loss_is_its_slope(x64):
    x0 = jax.random.normal(jax.random.key(4), (16, 3))
    params = np.random.default_rng(0).standard_normal((2, 3, 3))

    @jax.jit
    def loss(params):
        def noise_fn(x, t):
            return jnp.tanh(x @ params[0] + t) @ params[1]

        return jnp.mean(sliced_score_matching_loss(noise_fn, VP(), batch_keys(), x0))

    direction = np.random.default_rng(1).standard_normal(params.shape)
    slope = float(jnp.sum(jax.jit(jax.grad(loss))(jnp.asarray(params)) * direction))
    ends = [float(loss(jnp.asarray(params + step * direction))) for step in (1e-5, -1e-5)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)

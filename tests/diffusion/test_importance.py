"""Importance sampling of the training times: the weight of the likelihood as a density, and no bias."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import batch_keys
from closed_forms import GAUSSIAN, SDE_CASES
from scipy import stats

from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.losses import score_matching_loss
from score_sde_jax.diffusion.sdes import SDES


@pytest.mark.parametrize("name", SDES)
def test_importance_of_a_time_is_its_weight_in_the_likelihood(name, x64):
    """Density and constant: E_q[w l(t)] is the integral of g^2 / sigma^2 l(t) over the range of times, for any l."""
    sde = SDES[name]()
    t = np.sort(np.asarray(losses.importance(sde, batch_keys(1 << 14))))
    ratio = [np.log(sde.sigma(x) / sde.alpha(x)) for x in map(jnp.asarray, (sde.t_min, t, sde.t_max))]
    assert stats.kstest((ratio[1] - ratio[0]) / (ratio[2] - ratio[0]), stats.uniform.cdf).pvalue > 1e-3
    # The share of samples in an interval is the share of the integral of the weight.
    for share in (0.1, 0.5, 0.9):
        end = sde.t_min + share**4 * (sde.t_max - sde.t_min)
        grid = sde.t_min + (end - sde.t_min) * np.geomspace(1e-9, 1, 4001)
        integral = np.trapezoid(np.asarray(losses.likelihood(sde, jnp.asarray(grid))), grid)
        constant = float(losses.likelihood_importance(sde, jnp.asarray(end)))
        actual = constant * np.mean(t <= end) * (sde.t_max - sde.t_min)
        probability = np.mean(t <= end)
        allowed = 5 * constant * np.sqrt(probability * (1 - probability) / len(t)) * (sde.t_max - sde.t_min)
        assert abs(actual - integral) < allowed + 0.01 * integral


@pytest.mark.parametrize("name", SDE_CASES)
def test_importance_does_not_bias_the_likelihood_loss(name):
    sde = SDE_CASES[name][0]
    x0 = GAUSSIAN.sample(jax.random.key(5), (4096, 4))
    loss = functools.partial(score_matching_loss, lambda x, t: 0.5 * jnp.tanh(x), sde, batch_keys(4096), x0)
    actual = jax.jit(functools.partial(loss, times=losses.importance, weight=losses.likelihood_importance))()
    expected = jax.jit(functools.partial(loss, times=losses.uniform, weight=losses.likelihood))()
    means, errors = zip(
        *((np.mean(x), np.std(x) / np.sqrt(len(x))) for x in map(np.asarray, (actual, expected))), strict=True
    )
    assert abs(means[0] - means[1]) < 4 * np.hypot(*errors)
    assert np.all(np.isfinite(actual)) and errors[0] < 1.1 * errors[1]

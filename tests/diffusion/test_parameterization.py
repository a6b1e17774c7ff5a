"""Each parameterization against the formula of its paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import SDE_CASES

from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS, Parameterization
from score_sde_jax.diffusion.sdes import DDPM, EDM, VE
from score_sde_jax.samplers import GRIDS

SIGMA_DATA = 0.5


def network(x, condition):
    """An arbitrary nonlinear function of its input."""
    del condition
    return jnp.sin(3 * x) + 0.3 * x**2 - 0.2


def karras_denoiser(x, sigma):
    """D(x, sigma) of arXiv 2206.00364, eq. 7 and Table 1."""
    variance = sigma**2 + SIGMA_DATA**2
    c_skip, c_out = SIGMA_DATA**2 / variance, sigma * SIGMA_DATA / jnp.sqrt(variance)
    return c_skip * x + c_out * network(x / jnp.sqrt(variance), None)


# name: (sde, x, t, eps) -> (result of the parameterization, formula of the paper)
PUBLISHED_FORMS = {
    "score": lambda sde, x, t, eps: (sde.score(eps, t), network(x, None)),
    "scaled_score": lambda sde, x, t, eps: (sde.score(eps, t), network(x, None) / sde.sigma(t)),
    "noise": lambda sde, x, t, eps: (eps, network(x, None)),
    "edm": lambda sde, x, t, eps: (
        sde.denoised(x, eps, t),
        karras_denoiser(x / sde.alpha(t), sde.sigma(t) / sde.alpha(t)),
    ),
}

# name: (sde, times, noise conditions)
CONDITION_VALUES = {
    "none": (VE(), [0.0, 0.5], None),
    "level_index": (VE(), [1.0, 8 / 9, 0.04, 0.0], [0, 1, 9, 9]),
    "log_sigma": (VE(sigma_min=0.01, sigma_max=1.0), [1.0, 0.5], [0.0, np.log(0.1)]),
    "quarter_log_sigma": (EDM(), [80.0, 0.5], [np.log(80.0) / 4, np.log(0.5) / 4]),
    "scaled_time": (DDPM(), [0.0, 400 / 999, 1.0], [0, 400, 999]),
}


def test_every_registered_entry_has_a_case():
    assert set(PUBLISHED_FORMS) == set(PARAMETERIZATIONS)
    assert set(CONDITION_VALUES) == set(CONDITIONS)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_output_means_what_the_paper_says(name, sde_name, x64):
    sde, *times = SDE_CASES[sde_name]
    parameterization = Parameterization(coefficients=PARAMETERIZATIONS[name], condition=CONDITIONS["none"])
    t = jnp.asarray(times)[:, None]
    x = jnp.asarray([[0.3, -1.2, 2.0], [0.1, 0.8, -0.7]])
    actual, expected = PUBLISHED_FORMS[name](sde, x, t, parameterization.noise_fn(network, sde)(x, t))
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_edm_scales_give_unit_variance(sde_name, x64):
    sde, t, _ = SDE_CASES[sde_name]
    t = jnp.asarray(t)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    c = PARAMETERIZATIONS["edm"](sde, t)
    # x = alpha x0 + sigma eps, with x0 of variance sigma_data^2, is scaled to unit variance;
    assert float(c.input**2 * ((alpha * SIGMA_DATA) ** 2 + sigma**2)) == pytest.approx(1)
    # the target (eps - skip x) / output is a sum of eps and x0, of unit variance too,
    # and uncorrelated with x, so no other c_skip has a target of smaller variance.
    of_eps, of_x0 = (1 - c.skip * sigma) / c.output, -c.skip * alpha / c.output
    assert float(of_eps**2 + (of_x0 * SIGMA_DATA) ** 2) == pytest.approx(1)
    assert float(of_eps * sigma + of_x0 * alpha * SIGMA_DATA**2) == pytest.approx(0, abs=1e-12)
    # with eq. (12) the squared error of the output has the same weight at all times
    assert float(losses.edm(sde, t) * c.output**2) == pytest.approx(1)


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("shape", [(), (-1, 1, 1, 1)])
def test_network_is_conditioned_on_one_number_per_image(name, shape):
    sde, times, expected = CONDITION_VALUES[name]
    parameterization = Parameterization(coefficients=PARAMETERIZATIONS["noise"], condition=CONDITIONS[name])
    conditions = []
    noise_fn = parameterization.noise_fn(lambda x, condition: conditions.append(condition.noise) or x, sde)
    batches = times if shape == () else [times]  # a scalar time of sampling, or the times of a training batch
    for t in batches:
        noise_fn(jnp.zeros((len(times), 2, 2, 1)), jnp.reshape(jnp.asarray(t, jnp.float32), shape))
    if expected is None:
        assert conditions == [None] * len(batches)
        return
    expected = np.array([[w] * len(times) for w in expected]) if shape == () else np.array([expected])
    np.testing.assert_allclose(np.array(conditions), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_levels", [2, 10, 232])
def test_level_index_counts_the_ladder_of_training_and_of_sampling(num_levels):
    sde = VE()
    index = functools.partial(CONDITIONS["level_index"], sde, num_levels=num_levels)
    sampling = index(GRIDS["ladder"](sde, num_levels=num_levels))
    np.testing.assert_array_equal(sampling, [*range(num_levels), num_levels - 1])
    keys = jax.random.split(jax.random.key(0), 512)
    times = losses.ladder(sde, keys, num_levels=num_levels)
    assert jnp.issubdtype(index(times).dtype, jnp.integer)
    ladder = np.linspace(1.0, 0.0, num_levels)
    np.testing.assert_allclose(times, ladder[np.asarray(index(times))], atol=1e-6)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_center_is_the_image_value_that_the_network_sees_as_zero(name, sde_name, x64):
    sde, t, _ = SDE_CASES[sde_name]
    t = jnp.asarray(t)
    make = functools.partial(Parameterization, coefficients=PARAMETERIZATIONS[name], condition=CONDITIONS["none"])
    x0, eps = jnp.asarray([[0.2, 0.9]]), jnp.asarray([[-0.4, 1.1]])
    # Moving data and center by the same amount changes nothing.
    moved = sde.alpha(t) * (x0 + 0.5) + sde.sigma(t) * eps
    at_rest = make().noise_fn(network, sde)(sde.alpha(t) * x0 + sde.sigma(t) * eps, t)
    np.testing.assert_allclose(make(center=0.5).noise_fn(network, sde)(moved, t), at_rest, rtol=1e-9)
    # input_scale changes only the input of the network.
    scaled = make(center=0.5, input_scale=2.0).noise_fn(lambda x, condition: network(x / 2, condition), sde)
    np.testing.assert_allclose(scaled(moved, t), at_rest, rtol=1e-9)


def test_data_in_0_1_reach_the_network_as_2x_minus_1():
    seen = []
    parameterization = Parameterization(
        coefficients=PARAMETERIZATIONS["score"],
        condition=CONDITIONS["none"],
        center=0.5,
        input_scale=2.0,
    )
    x = jnp.asarray([[0.0, 0.25, 1.0]])
    parameterization.noise_fn(lambda x, condition: seen.append(x) or x, VE())(x, jnp.asarray(0.5))
    np.testing.assert_allclose(seen[0], 2 * x - 1)

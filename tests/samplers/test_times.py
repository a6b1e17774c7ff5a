"""Time grids against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from score_sde_jax.diffusion.sdes import EDM, SDES, VE, VP
from score_sde_jax.samplers import GRIDS


def vp_sigmas(steps):
    """sigma of the linear beta from 0.1 to 20 between t = 1 and 0.01, where sigma / alpha is a geometric sequence."""
    squares = [1 - np.exp(-(0.1 * t + 9.95 * t**2)) for t in (1.0, 0.01)]
    ratios = np.geomspace(*[np.sqrt(square / (1 - square)) for square in squares], steps + 1)
    return ratios / np.sqrt(1 + ratios**2)


# name: (sde, options, the noise levels or times of the paper)
CLOSED = {
    "ladder": (
        VE(sigma_min=0.01, sigma_max=1.0),
        {"num_levels": 10},
        [*np.geomspace(1, 0.01, 10), 0.01],
    ),
    "uniform": (EDM(t_min=0.5, t_max=2.5), {"num_steps": 4}, [2.5, 2.0, 1.5, 1.0, 0.5]),
    "karras": (  # arXiv 2206.00364, eq. 5, with N = 18
        EDM(),
        {"num_steps": 17},
        [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)],
    ),
    "log_snr": (VP(t_min=0.01), {"num_steps": 6}, vp_sigmas(6)),
}


def test_every_registered_grid_has_its_closed_form():
    assert set(CLOSED) == set(GRIDS)


@pytest.mark.parametrize("name", GRIDS)
def test_grid_is_its_closed_form(name, x64):
    sde, options, expected = CLOSED[name]
    np.testing.assert_allclose(sde.sigma(GRIDS[name](sde, **options)), expected, rtol=1e-9)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("sde", SDES)
def test_grid_decreases_from_t_max_to_t_min(name, sde):
    sde = SDES[sde]()
    times = np.asarray(GRIDS[name](sde))
    assert times.dtype == np.float32
    np.testing.assert_allclose(times[[0, -1]], [sde.t_max, sde.t_min], rtol=1e-5, atol=1e-7)
    steps = np.diff(times)
    assert np.all(steps[:-1] < 0) and steps[-1] <= 0


@pytest.mark.parametrize("name", GRIDS)
def test_number_of_steps(name):
    option = "num_levels" if name == "ladder" else "num_steps"
    assert len(GRIDS[name](VP(), **{option: 12})) == 13


def test_uniform_grid_ends_where_it_is_told():
    times = GRIDS["uniform"](VP(), num_steps=10, t_end=1e-3)
    np.testing.assert_allclose(times, np.linspace(1, 1e-3, 11), rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "ladder"])
def test_a_grid_without_steps_is_refused(name):
    with pytest.raises(ValueError, match="num_steps must be >= 1, got 0"):
        GRIDS[name](VP(), num_steps=0)


@pytest.mark.parametrize("t_end", [-0.1, 1.0, 3.0])
def test_a_grid_that_ends_outside_the_times_of_the_sde_is_refused(t_end):
    with pytest.raises(ValueError, match=rf"t_end must be >= t_min=1e-05 and < t_max=1\.0, got {t_end}"):
        GRIDS["uniform"](VP(), num_steps=5, t_end=t_end)


def test_karras_grid_with_rho_1_is_uniform(x64):
    np.testing.assert_allclose(GRIDS["karras"](EDM(), num_steps=9, rho=1.0), jnp.linspace(80.0, 0.002, 10), rtol=1e-12)

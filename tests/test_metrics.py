"""Metrics against closed forms and brute force."""

import numpy as np
import pytest

from score_sde_jax.metrics import frechet_distance, nearest_distances


def test_frechet_distance_of_commuting_gaussians():
    """For diagonal covariances it is |mean difference|^2 + sum (std_a - std_b)^2."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 3))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T  # exactly white
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 3.0])
    shift = np.array([0.3, -1.0, 0.0])
    expected = np.sum(shift**2) + np.sum((a - b) ** 2)
    assert frechet_distance(a * z, b * z + shift) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_is_zero_for_itself_where_the_covariance_is_singular():
    x = np.random.default_rng(0).standard_normal((20, 30))
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)


def test_nearest_distances():
    rng = np.random.default_rng(0)
    q, r = rng.standard_normal((25, 5)), rng.standard_normal((40, 5))
    brute = np.linalg.norm(q[:, None] - r[None], axis=2).min(1)
    np.testing.assert_allclose(nearest_distances(q, r, block=7), brute, rtol=1e-9)

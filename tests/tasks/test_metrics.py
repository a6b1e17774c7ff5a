"""Metrics against closed forms and brute force."""

import numpy as np
import pytest
from scipy import linalg

from score_sde_jax.tasks.frechet import frechet_distance
from score_sde_jax.tasks.neighbors import nearest_distances, nearest_neighbors


def test_frechet_distance_of_commuting_gaussians():
    """For diagonal covariances the distance is |mean difference|^2 + sum (std_a - std_b)^2."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 3))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T  # exactly white
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 3.0])
    shift = np.array([0.3, -1.0, 0.0])
    expected = np.sum(shift**2) + np.sum((a - b) ** 2)
    assert frechet_distance(a * z, b * z + shift) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    """Compare with the matrix square root of the paper; for equal covariances, with the distance of the means."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 4)) + rng.standard_normal(4) for _ in range(2))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    assert np.abs(cov_a @ cov_b - cov_b @ cov_a).max() > 0.1
    root = np.trace(linalg.sqrtm(cov_a @ cov_b)).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
    shift = np.array([1.0, -2.0, 0.5, 0.0])
    assert frechet_distance(a, a + shift) == pytest.approx(np.sum(shift**2), rel=1e-8)


def test_frechet_distance_in_one_dimension():
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [9.0]])  # means 1 and 6, variances 2 and 18
    assert frechet_distance(a, b) == pytest.approx(25 + (18**0.5 - 2**0.5) ** 2)


def test_frechet_distance_is_zero_for_itself_if_the_covariance_is_singular():
    x = np.random.default_rng(0).standard_normal((20, 30))
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)


def test_nearest_distances():
    rng = np.random.default_rng(0)
    q, r = rng.standard_normal((25, 5)), rng.standard_normal((40, 5))
    brute = np.linalg.norm(q[:, None] - r[None], axis=2).min(1)
    for block in (1, 7, 25, 1000):
        np.testing.assert_allclose(nearest_distances(q, r, block=block), brute, rtol=1e-9)
    np.testing.assert_allclose(nearest_distances(r, r), 0.0, atol=1e-6)
    gray = rng.integers(0, 256, (6, 9), np.uint8)  # squares of gray levels do not overflow
    brute = np.linalg.norm(gray[:3, None].astype(float) - gray[None, 3:], axis=2).min(1)
    np.testing.assert_allclose(nearest_distances(gray[:3], gray[3:]), brute, rtol=1e-9)


@pytest.mark.parametrize("block", [1, 7, 40])
def test_nearest_neighbors_are_those_of_brute_force(block):
    rng = np.random.default_rng(0)
    q, r = rng.integers(0, 256, (5, 9), np.uint8), rng.integers(0, 256, (40, 9), np.uint8)
    r[30] = r[3]  # ties go to the smaller index
    apart = np.linalg.norm(q[:, None].astype(float) - r[None], axis=2)
    indices, distances = nearest_neighbors(q, (r[i : i + block] for i in range(0, 40, block)), 40)
    np.testing.assert_array_equal(indices, np.argsort(apart, axis=1, kind="stable"))
    np.testing.assert_allclose(distances, np.sort(apart, axis=1), rtol=1e-9)
    few, _ = nearest_neighbors(q, [r], 3)
    np.testing.assert_array_equal(few, indices[:, :3])
    with pytest.raises(ValueError, match="num must be <= 40, the number of references, got 41"):
        nearest_neighbors(q, [r], 41)

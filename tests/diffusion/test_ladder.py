"""NCSNv2's ladder against the ladders that its authors published with them (arXiv 2006.09011, Appendix B)."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from score_sde_jax.diffusion import ladder
from score_sde_jax.errors import UserError

# pixels, sigma_1, levels, Langevin steps a level, step_lr; sigma_L is 0.01
PUBLISHED = {
    "cifar10": (32, 50.0, 232, 5, 6.2e-6),
    "celeba": (64, 90.0, 500, 5, 3.3e-6),
    "church": (96, 140.0, 788, 4, None),  # the formula does not give the published 4.9e-6
    "bedroom": (128, 190.0, 1086, 3, 1.8e-6),
    "ffhq": (256, 348.0, 2311, 3, 9e-7),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_levels(name):
    pixels, sigma_max, levels, _, _ = PUBLISHED[name]
    assert ladder.num_levels(3 * pixels**2, 0.01, sigma_max) == pytest.approx(levels, rel=0.002)


@pytest.mark.parametrize("dimension", [6, 48, 3072])
def test_neighboring_shells_overlap(dimension):
    """A share OVERLAP of the distribution of |x| at one level is within three standard deviations of the next level."""
    gamma = ladder.ladder_ratio(dimension)
    assert gamma > 1

    def phi(z: float) -> float:
        return 0.5 * (1 + math.erf(z / math.sqrt(2)))

    shift = math.sqrt(2 * dimension) * (gamma - 1)
    assert phi(shift + 3 * gamma) - phi(shift - 3 * gamma) == pytest.approx(ladder.OVERLAP, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name][4]])
def test_step_size(name):
    _, sigma_max, levels, num_steps, step_lr = PUBLISHED[name]
    ratio = (sigma_max / 0.01) ** (1 / (levels - 1))
    assert ladder.langevin_step_size(ratio, num_steps) * 0.01**2 == pytest.approx(step_lr, rel=0.02)


def test_points_have_no_shells():
    with pytest.raises(UserError, match=r"num_levels=auto: images must have >= 6 values, got 2; set a number instead"):
        ladder.num_levels(2, 0.01, 1.0)


def test_the_step_size_keeps_the_variance_of_a_level():
    """Follow the variance of Langevin steps on p = N(0, sigma^2) from gamma^2 sigma^2: it ends nearest to sigma^2."""

    def variance(size: float, ratio: float, num_steps: int) -> float:
        v = ratio**2
        for _ in range(num_steps):
            v = (1 - size) ** 2 * v + 2 * size
        return v

    optimum = ladder.langevin_step_size(1.04, 5)
    off = [abs(variance(size, 1.04, 5) - 1) for size in (0.8 * optimum, optimum, 1.25 * optimum)]
    assert off[1] < off[0] and off[1] < off[2]


def test_largest_distance(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (150, 4, 4, 3)).astype(np.uint8)
    expected = pdist(images.reshape(150, -1).astype(float)).max()
    assert ladder.largest_pairwise_distance(images) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(ladder, "MAX_IMAGES", 50)
    assert ladder.largest_pairwise_distance(images) <= expected * (1 + 1e-5)

"""NCSNv2's choices of the noise ladder and the Langevin step from the data (arXiv 2006.09011). Equations:
docs/theory.md.
"""

import math

import numpy as np
from jaxtyping import Num
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from score_sde_jax.errors import UserError

MAX_IMAGES = 10_000
"""Distances are measured among this many images at most, drawn evenly from the data set."""

OVERLAP = 0.567
"""The paper asks for an overlap of about 0.5; all of its ladders (232, 500, 788, 1086, 2311 levels) have 0.567."""

MIN_DIMENSION = 6
"""Technique 2 has no ratio, or one above 10, in fewer dimensions."""


def largest_pairwise_distance(images: Num[np.ndarray, "num ..."]) -> float:
    """Largest Euclidean distance between two images, NCSNv2's sigma_1, eq. (21) (technique 1).

    Of a data set above MAX_IMAGES images it is a lower bound, measured on an evenly spaced subset.
    """
    chosen = np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).astype(int)
    x = images[chosen].reshape(len(chosen), -1).astype(np.float32)
    x -= x.mean(axis=0)  # distances do not change, float32 keeps more of their digits
    squares = np.sum(x**2, axis=1)
    largest = 0.0
    for start in range(0, len(x), 1000):
        block = slice(start, start + 1000)
        distances = squares[block, None] + squares[None, :] - 2 * x[block] @ x.T
        largest = max(largest, float(distances.max()))
    return math.sqrt(largest)


def ladder_ratio(dimension: int) -> float:
    """Ratio gamma of neighbouring noise levels whose shells overlap by OVERLAP, eq. (22) (technique 2).

    Raises UserError below MIN_DIMENSION, where noise forms no shells and no ladder separates them.
    """
    if dimension < MIN_DIMENSION:
        raise UserError(
            f'num_levels="auto" needs images of at least {MIN_DIMENSION} values, not {dimension}; give a number'
        )

    def overlap(gamma: float) -> float:
        shift = math.sqrt(2 * dimension) * (gamma - 1)
        return norm.cdf(shift + 3 * gamma) - norm.cdf(shift - 3 * gamma) - OVERLAP

    return brentq(overlap, 1.0, 10.0)


def num_levels(dimension: int, sigma_min: float, sigma_max: float) -> int:
    """Number of levels of a ladder from sigma_max to sigma_min with the ratio of technique 2."""
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ladder_ratio(dimension))))


def langevin_step_size(ratio: float, num_steps: int) -> float:
    """Step size in units of sigma^2 that keeps the noise of a level after num_steps steps nearest to sigma^2, eq. (23)
    (technique 4).
    """

    def mismatch(r: float) -> float:
        stationary = 2 / (2 - r)
        return abs((1 - r) ** (2 * num_steps) * (ratio**2 - stationary) + stationary - 1)

    grid = np.geomspace(1e-6, 1.0, 2000)
    best = int(np.argmin([mismatch(r) for r in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(minimize_scalar(mismatch, bounds=(low, high), method="bounded").x)

"""The Fréchet distance between two sets of features."""

import numpy as np
from jaxtyping import Num
from scipy import linalg


def frechet_distance(a: Num[np.ndarray, "num_a dim"], b: Num[np.ndarray, "num_b dim"]) -> float:
    """Compute the squared 2-Wasserstein distance between the Gaussians fitted to two sets of features.

    It is |mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)), in squared units of the features.

    Args:
        a: features of the first set.
        b: features of the second set.

    Reference: arXiv 1706.08500, eq. 6.
    """
    a, b = (np.asarray(features, np.float64) for features in (a, b))
    cov_a, cov_b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (a, b))
    # tr (C_a C_b)^(1/2) is the sum of the singular values of C_a^(1/2) C_b^(1/2), which is stable for singular C.
    cross = linalg.svdvals(_sqrt(cov_a) @ _sqrt(cov_b)).sum()
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _sqrt(covariance: np.ndarray) -> np.ndarray:
    values, vectors = linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T

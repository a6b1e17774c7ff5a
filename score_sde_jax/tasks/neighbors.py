"""Nearest training images of samples, to detect memorization."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, Num


def nearest_distances(
    queries: Num[np.ndarray, "num_queries dim"], references: Num[np.ndarray, "num_references dim"], block: int = 1000
) -> Float[np.ndarray, " num_queries"]:
    """Compute the Euclidean distance of each query to its nearest reference.

    Args:
        queries: flattened images.
        references: flattened images.
        block: queries per matrix product, which limits the memory.
    """
    q, r = queries.astype(np.float64), references.astype(np.float64)
    squares = np.sum(r**2, axis=1)
    nearest = [
        np.min(np.sum(part**2, axis=1)[:, None] + squares[None, :] - 2 * part @ r.T, axis=1)
        for part in np.split(q, range(block, len(q), block))
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0.0))


def nearest_neighbors(
    queries: Num[np.ndarray, "num_queries dim"], references: Iterable[Num[np.ndarray, "block dim"]], num: int
) -> tuple[Int[np.ndarray, "num_queries num"], Float[np.ndarray, "num_queries num"]]:
    """Find the nearest references of each query.

    Args:
        queries: flattened images.
        references: blocks of flattened images, so that a large dataset is never in memory as a whole.
        num: neighbors per query, >= 1.

    Returns:
        Indices of the references and their Euclidean distances, nearest first; ties go to the smaller index.

    Raises:
        ValueError: there are fewer than `num` references.
    """
    q = queries.astype(np.float64)
    q_squares = np.sum(q**2, axis=1)[:, None]
    indices, distances = np.zeros((len(q), 0), np.int64), np.zeros((len(q), 0))
    start = 0
    for block in references:
        r = block.astype(np.float64)
        squares = q_squares + np.sum(r**2, axis=1)[None, :] - 2 * q @ r.T
        indices = np.concatenate([indices, np.broadcast_to(start + np.arange(len(r)), squares.shape)], axis=1)
        distances, start = np.concatenate([distances, squares], axis=1), start + len(r)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :num]
        indices = np.take_along_axis(indices, nearest, axis=1)
        distances = np.take_along_axis(distances, nearest, axis=1)
    if start < num:
        raise ValueError(f"num must be <= {start}, the number of references, got {num}")
    return indices, np.sqrt(np.maximum(distances, 0.0))

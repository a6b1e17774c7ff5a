"""How near samples are to the training images."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, Num


def nearest_distances(
    queries: Num[np.ndarray, "num_queries dim"], references: Num[np.ndarray, "num_references dim"], block: int = 1000
) -> Float[np.ndarray, " num_queries"]:
    """Euclidean distance of each query to its nearest reference."""
    q, r = queries.astype(np.float64), references.astype(np.float64)
    squares = np.sum(r**2, axis=1)
    nearest = [
        np.min(np.sum(part**2, axis=1)[:, None] + squares[None, :] - 2 * part @ r.T, axis=1)
        for part in np.split(q, range(block, len(q), block))
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0.0))


def nearest_neighbours(
    queries: Num[np.ndarray, "num_queries dim"], references: Iterable[Num[np.ndarray, "block dim"]], num: int
) -> tuple[Int[np.ndarray, "num_queries num"], Float[np.ndarray, "num_queries num"]]:
    """Numbers of the `num` nearest references of each query and their Euclidean distances, the nearest first.

    References come in blocks, so that a large set need not lie in memory; of equal ones the earlier counts as nearer.
    Raises ValueError where there are fewer than `num`.
    """
    q = queries.astype(np.float64)
    q_squares = np.sum(q**2, axis=1)[:, None]
    numbers, distances = np.zeros((len(q), 0), np.int64), np.zeros((len(q), 0))
    seen = 0
    for block in references:
        r = block.astype(np.float64)
        found = q_squares + np.sum(r**2, axis=1)[None, :] - 2 * q @ r.T
        numbers = np.concatenate([numbers, np.broadcast_to(seen + np.arange(len(r)), found.shape)], axis=1)
        distances, seen = np.concatenate([distances, found], axis=1), seen + len(r)
        best = np.argsort(distances, axis=1, kind="stable")[:, :num]
        numbers = np.take_along_axis(numbers, best, axis=1)
        distances = np.take_along_axis(distances, best, axis=1)
    if seen < num:
        raise ValueError(f"{num} neighbours are asked for, and there are {seen} references")
    return numbers, np.sqrt(np.maximum(distances, 0.0))

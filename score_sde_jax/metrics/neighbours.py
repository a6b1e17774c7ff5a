"""How near samples are to the training images."""

import numpy as np
from jaxtyping import Float, Num


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

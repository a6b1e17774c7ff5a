"""What predictors and correctors share: the type of a step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Keys = Key[Array, " batch"]
Images = Float[Array, "batch *shape"]
Scalar = Float[Array, ""]
Counts = Int[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Step:
    """A sampler's step (keys, x, t, s) -> x and how often it evaluates the network for every image.

    Where the images decide how often, `evaluations` is None and `move` returns (x, evaluations of each image).
    """

    move: Callable[[Keys, Images, Scalar, Scalar], Any]
    evaluations: int | None

    def __call__(self, keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        """Move the images x from time t to time s."""
        return self.counted(keys, x, t, s)[0]

    def counted(self, keys: Keys, x: Images, t: Scalar, s: Scalar) -> tuple[Images, Counts]:
        """Move the images x from time t to time s, and say how often the network was evaluated for each."""
        moved = self.move(keys, x, t, s)
        return moved if self.evaluations is None else (moved, jnp.full(len(x), self.evaluations, jnp.int32))

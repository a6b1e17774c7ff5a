"""What predictors and correctors share: the type of a step."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float, Key

Move = Callable[
    [Key[Array, " batch"], Float[Array, "batch *shape"], Float[Array, ""], Float[Array, ""]],
    Float[Array, "batch *shape"],
]


@dataclasses.dataclass(frozen=True)
class Step:
    """A sampler's step (keys, x, t, s) -> x and how often it evaluates the network."""

    move: Move
    evaluations: int

    def __call__(
        self, keys: Key[Array, " batch"], x: Float[Array, "batch *shape"], t: Float[Array, ""], s: Float[Array, ""]
    ) -> Float[Array, "batch *shape"]:
        """Move the images x from time t to time s."""
        return self.move(keys, x, t, s)

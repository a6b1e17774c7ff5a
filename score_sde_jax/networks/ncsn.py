"""NCSN: the conditional dilated RefineNet of arXiv 1907.05600 (appendix A)."""

import functools
from typing import Any, Literal

from flax import linen as nn

from score_sde_jax.condition import Condition
from score_sde_jax.networks.layers import ConditionalInstanceNormPlus, Image, average_pool_5x5
from score_sde_jax.networks.refinenet import Stage, refinenet

STAGES = (
    Stage("res1", "refine4", width=1),
    Stage("res2", "refine3", width=2, halve=True),
    Stage("res3", "refine2", width=2, dilation=2),
    Stage("res4", "refine1", width=2, dilation=4),
)


class NCSN(nn.Module):
    """Score network told the noise level by its index, 0 for the largest sigma.

    width is 128 for CIFAR-10 and CelebA and 64 for MNIST. Even image sizes. Raises UserError.
    """

    width: int = 128
    num_levels: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"

    @staticmethod
    def conditions(**_: Any) -> tuple[str, ...]:
        """Noise conditions that the network reads."""
        return ("level_index",)

    @nn.compact
    def __call__(self, x: Image, condition: Condition, train: bool = False) -> Image:
        """Return the score of images `x` in [-1, 1] plus noise of level `condition.noise`."""
        norm = functools.partial(ConditionalInstanceNormPlus, self.num_levels)
        return refinenet(
            x,
            condition.noise,
            STAGES,
            self.width,
            norm=norm,
            refine_norm=norm,
            pool=average_pool_5x5,
            dtype=self.dtype,
        )

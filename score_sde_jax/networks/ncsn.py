"""NCSN: the conditional dilated RefineNet of arXiv 1907.05600, Appendix A."""

import functools
from typing import Any, Literal

from flax import linen as nn

from score_sde_jax.condition import Condition
from score_sde_jax.networks.layers import Image, average_pool_5x5
from score_sde_jax.networks.norms import ConditionalInstanceNormPlus
from score_sde_jax.networks.refinenet import Stage, refinenet
from score_sde_jax.ranges import Levels, Width

STAGES = (
    Stage("res1", "refine4", width=1),
    Stage("res2", "refine3", width=2, halve=True),
    Stage("res3", "refine2", width=2, dilation=2),
    Stage("res4", "refine1", width=2, dilation=4),
)


class NCSN(nn.Module):
    """Score network of NCSN, conditioned on the index of the noise level, 0 for the largest sigma.

    Attributes:
        width: number of channels at full resolution; 128 for CIFAR-10 and CelebA, 64 for MNIST.
        num_levels: number of noise levels.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        UserError: the image size is odd.

    Reference: arXiv 1907.05600, Appendix A.
    """

    width: Width = 128
    num_levels: Levels = 10
    dtype: Literal["float32", "bfloat16"] = "float32"

    @staticmethod
    def conditions(**_: Any) -> tuple[str, ...]:
        """Return the noise conditions that the network accepts."""
        return ("level_index",)

    @nn.compact
    def __call__(self, x: Image, condition: Condition, train: bool = False) -> Image:
        """Return the score of noisy images `x` of data in [-1, 1], at the level index `condition.noise`."""
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

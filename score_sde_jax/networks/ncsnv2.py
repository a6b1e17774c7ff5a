"""NCSNv2: the RefineNets of arXiv 2006.09011 (appendix B.1), not told the noise level."""

from typing import Any, ClassVar, Literal

from flax import linen as nn

from score_sde_jax.condition import Condition
from score_sde_jax.networks.layers import Image, InstanceNormPlus, max_pool_5x5
from score_sde_jax.networks.refinenet import Stage, refinenet


class NCSNv2(nn.Module):
    """Network for 32 and 64 px; `sigma` times its score, the division is the caller's.

    The norms are unconditional and stand in the backbone only. Raises UserError for an image
    size that cannot be halved once per stage with `halve`.
    """

    width: int = 128
    dtype: Literal["float32", "bfloat16"] = "float32"
    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("res1", "refine4", width=1),
        Stage("res2", "refine3", width=2, halve=True),
        Stage("res3", "refine2", width=2, dilation=2),
        Stage("res4", "refine1", width=2, dilation=4),
    )

    @staticmethod
    def conditions(**_: Any) -> tuple[str, ...]:
        """Noise conditions that the network reads."""
        return ("none",)

    @nn.compact
    def __call__(self, x: Image, condition: Condition, train: bool = False) -> Image:
        """Return `sigma` times the score of images `x` in [-1, 1] plus noise."""
        return refinenet(
            x,
            None,
            self.stages,
            self.width,
            norm=InstanceNormPlus,
            refine_norm=None,
            pool=max_pool_5x5,
            dtype=self.dtype,
        )


class NCSNv2Deeper(NCSNv2):
    """NCSNv2 for 96 and 128 px: one more halving, twice the channels below it."""

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("res1", "refine5", width=1),
        Stage("res2", "refine4", width=2, halve=True),
        Stage("res3", "refine3", width=2, halve=True),
        Stage("res4", "refine2", width=4, dilation=2),
        Stage("res5", "refine1", width=4, dilation=4),
    )


class NCSNv2Deepest(NCSNv2):
    """NCSNv2 for 256 px: three halvings."""

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("res1", "refine5", width=1),
        Stage("res2", "refine4", width=2, halve=True),
        Stage("res3", "refine3", width=2, halve=True),
        Stage("res31", "refine31", width=2, halve=True),
        Stage("res4", "refine2", width=4, dilation=2),
        Stage("res5", "refine1", width=4, dilation=4),
    )

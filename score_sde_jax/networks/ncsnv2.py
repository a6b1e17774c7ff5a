"""NCSNv2: the unconditional RefineNets of arXiv 2006.09011, Appendix B.1."""

from typing import Any, ClassVar, Literal

from flax import linen as nn

from score_sde_jax.condition import Condition
from score_sde_jax.networks.layers import Image, max_pool_5x5
from score_sde_jax.networks.norms import InstanceNormPlus
from score_sde_jax.networks.refinenet import Stage, refinenet
from score_sde_jax.ranges import Width


class NCSNv2(nn.Module):
    """Unconditional network of NCSNv2 for 32 and 64 pixels, which predicts sigma times the score.

    The backbone has InstanceNorm++, the refinement has no norms.

    Attributes:
        width: number of channels at full resolution.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        UserError: the image size is not divisible by 2 for every stage with `halve`.

    Reference: arXiv 2006.09011, Appendix B.1.
    """

    width: Width = 128
    dtype: Literal["float32", "bfloat16"] = "float32"
    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("res1", "refine4", width=1),
        Stage("res2", "refine3", width=2, halve=True),
        Stage("res3", "refine2", width=2, dilation=2),
        Stage("res4", "refine1", width=2, dilation=4),
    )

    @staticmethod
    def conditions(**_: Any) -> tuple[str, ...]:
        """Return the noise conditions that the network accepts."""
        return ("none",)

    @nn.compact
    def __call__(self, x: Image, condition: Condition, train: bool = False) -> Image:
        """Return sigma times the score of noisy images `x` of data in [-1, 1]."""
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
    """Network of NCSNv2 for 96 and 128 pixels, with one more halving and twice the channels."""

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("res1", "refine5", width=1),
        Stage("res2", "refine4", width=2, halve=True),
        Stage("res3", "refine3", width=2, halve=True),
        Stage("res4", "refine2", width=4, dilation=2),
        Stage("res5", "refine1", width=4, dilation=4),
    )


class NCSNv2Deepest(NCSNv2):
    """Network of NCSNv2 for 256 pixels, with three halvings of the resolution."""

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("res1", "refine5", width=1),
        Stage("res2", "refine4", width=2, halve=True),
        Stage("res3", "refine3", width=2, halve=True),
        Stage("res31", "refine31", width=2, halve=True),
        Stage("res4", "refine2", width=4, dilation=2),
        Stage("res5", "refine1", width=4, dilation=4),
    )

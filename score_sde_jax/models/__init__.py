"""Networks: linen modules (x, condition, train) -> array of the shape of x, which know no SDE and no config.

`condition` is one number per image that tells the noise level, or None where the network is told nothing.
"""

from score_sde_jax.models.layers import BLOCK_OUTPUT
from score_sde_jax.models.mlp import MLP
from score_sde_jax.models.ncsn import NCSN
from score_sde_jax.models.ncsnv2 import NCSNv2, NCSNv2Deeper, NCSNv2Deepest
from score_sde_jax.models.small_unet import SmallUNet

__all__ = ["BLOCK_OUTPUT", "MLP", "MODELS", "NCSN", "NCSNv2", "NCSNv2Deeper", "NCSNv2Deepest", "SmallUNet"]

MODELS = {
    "ncsn": NCSN,
    "ncsnv2": NCSNv2,
    "ncsnv2_deeper": NCSNv2Deeper,
    "ncsnv2_deepest": NCSNv2Deepest,
    "small_unet": SmallUNet,
    "mlp": MLP,
}

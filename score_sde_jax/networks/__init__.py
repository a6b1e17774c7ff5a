"""Networks: linen modules (x, condition, train) -> array.

A noise-prediction network returns an array of the shape of x, `WideResNet` returns logits. Networks import neither SDEs
nor settings.
"""

from score_sde_jax.networks.classifier import WideResNet
from score_sde_jax.networks.embedding import trainable
from score_sde_jax.networks.layers import BLOCK_OUTPUT
from score_sde_jax.networks.mlp import MLP
from score_sde_jax.networks.ncsn import NCSN
from score_sde_jax.networks.ncsnv2 import NCSNv2, NCSNv2Deeper, NCSNv2Deepest
from score_sde_jax.networks.small_unet import SmallUNet
from score_sde_jax.networks.unet import DDPM, DDPMpp, NCSNpp, UNet

__all__ = [
    "BLOCK_OUTPUT",
    "DDPM",
    "MLP",
    "MODELS",
    "NCSN",
    "DDPMpp",
    "NCSNpp",
    "NCSNv2",
    "NCSNv2Deeper",
    "NCSNv2Deepest",
    "SmallUNet",
    "UNet",
    "WideResNet",
    "trainable",
]

MODELS = {
    "ncsn": NCSN,
    "ncsnv2": NCSNv2,
    "ncsnv2_deeper": NCSNv2Deeper,
    "ncsnv2_deepest": NCSNv2Deepest,
    "ddpm": DDPM,
    "ddpmpp": DDPMpp,
    "ncsnpp": NCSNpp,
    "small_unet": SmallUNet,
    "mlp": MLP,
    "wide_resnet": WideResNet,
}
